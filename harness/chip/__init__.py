"""A software 82599: ports with SR-IOV and their VFs, each a PCI function given to QEMU.

Its VFs are the twin's; what a model of the port's driver does there, the driver itself does here.
The rooms, outside in: ``__main__`` and ``loop`` serve the functions over vfio-user;
``physical_function`` is a port as ``ixgbe`` sees it, and ``pool`` what each VF is to it;
``configuration`` is configuration space with SR-IOV, ``registers`` BAR 0 and who answers there;
``nvm`` the EEPROM, ``sfp`` the module in the cage behind I2C, ``mailbox`` the port's end of 64
mailboxes, ``switch`` which pools a frame goes to, ``queues`` and ``interrupts`` the port's own,
``statistics`` its counters.
"""
