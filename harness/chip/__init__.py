"""A chip is a software 82599: ports with SR-IOV and VFs, each a PCI function given to QEMU.

The VFs are a twin's.  A twin has a model of the port's driver; a chip has the driver itself.
The modules, outside in: ``__main__`` and ``loop`` serve the functions over vfio-user, ``control``
answers a lab, ``record`` keeps what each VF did.  ``physical_function`` is a port as ``ixgbe`` sees
the port, ``pool`` a VF as the port sees the VF, and ``data_path`` the way of a frame through the
port.  ``configuration`` is configuration space with SR-IOV, ``placing`` tells QEMU where VFs are,
``registers`` is BAR 0 and who answers there.  ``nvm`` is the EEPROM, ``spi`` the EEPROM's own bus,
``sfp`` the module in the cage behind I2C, ``link`` cable, laser and training.  ``mailbox`` is the
port's end of 64 mailboxes, ``switch`` says which pools a frame goes to, ``rate`` how fast a VF may
send; ``queues`` and ``interrupts`` are the port's own, ``statistics`` and ``queue_statistics`` the
port's counters.
"""
