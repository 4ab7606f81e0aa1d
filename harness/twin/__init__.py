"""A software 82599 VF, given to a guest over vfio-user: a program of its own on a host.

Standard library and ``uapi`` only, for it is carried to where the guest is.  The rooms, outside
in: ``server`` and ``channel`` speak vfio-user; ``device`` is the VF as its guest sees it;
``config_space``, ``mailbox``, ``receive``, ``transmit``, ``interrupts`` and ``statistics`` are its
parts; ``port`` models the side of the port (PF) and its driver; ``memory`` is the guest's, and
``dma_log`` keeps what the VF did there; ``misbehaviour`` is what it can be told to do wrong.
"""
