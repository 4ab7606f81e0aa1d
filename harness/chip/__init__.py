"""A chip is a software 82599: ports with SR-IOV and VFs, each a PCI function given to QEMU.

A VF of a chip and a twin run the same code (``harness.twin.vf``).  A twin models the port's driver
too; a port of a chip is driven by ``ixgbe`` itself.

The modules, outside in: ``__main__`` and ``loop`` serve the functions over vfio-user, ``control``
answers a lab, ``record`` keeps what each VF did.  ``physical_function`` is a port as ``ixgbe`` sees
the port, ``pool`` a VF as the port sees the VF, and ``data_path`` the way of a frame through the
port.  ``configuration`` is configuration space with SR-IOV, ``placing`` tells QEMU where VFs are,
``registers`` leads each offset of BAR 0 to a module.  ``nvm`` is the EEPROM, ``spi`` the EEPROM's
own bus, ``sfp`` the module in the cage behind I2C, ``link`` cable, laser and training.  ``mailbox``
is the port's end of 64 mailboxes, ``switch`` says which pools a frame goes to, ``rate`` limits how
fast a VF sends.  ``queues`` leads the port's driver to all queues, ``interrupts`` sends the port's
messages, and ``statistics`` and ``queue_statistics`` are the port's counters.
"""
