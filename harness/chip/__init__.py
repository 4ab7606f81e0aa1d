"""A software 82599: ports with SR-IOV and their VFs, each a PCI function given to QEMU.

Its VFs are the twin's; what a model of the port's driver does there, the driver itself does here.
The rooms, outside in: ``__main__`` and ``loop`` serve the functions over vfio-user, ``control`` is
what the program can be asked and told, ``record`` what it keeps of each VF.
``physical_function`` is a port as ``ixgbe`` sees it, ``pool`` what each VF is to it, and
``data_path`` the way of a frame through it.  ``configuration`` is configuration space with SR-IOV,
``placing`` where VFs are, ``registers`` BAR 0 and who answers there.  ``nvm`` is the EEPROM,
``spi`` its own bus, ``sfp`` the module in the cage behind I2C, ``link`` cable, laser and training.
``mailbox`` is the port's end of 64 mailboxes, ``switch`` which pools a frame goes to, ``rate`` how
fast a VF may send, ``queues`` and ``interrupts`` the port's own, ``statistics`` and
``queue_statistics`` its counters.
"""
