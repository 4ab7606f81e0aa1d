"""A twin is a software 82599 VF, given to a guest over vfio-user by a program on a host.

Standard library and ``uapi`` only, for it is carried to where the guest is.  The modules,
outside in: ``server`` and ``channel`` speak vfio-user; ``device`` is the VF as its guest sees it;
``config_space``, ``mailbox``, ``receive``, ``transmit``, ``interrupts`` and ``statistics`` are its
parts; ``port`` models the side of the port (PF) and its driver; ``memory`` is the guest's, and
``dma_log`` keeps what the VF did there; ``misbehaviour`` is what a twin can be told to do wrong.
"""
