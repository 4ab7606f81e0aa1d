"""A twin is a software 82599 VF, given to a guest over vfio-user by a program on a host.

The package uses the standard library and ``uapi`` alone, since the harness copies it to the host of
the guest.  ``server`` and ``channel`` speak vfio-user.  ``vf`` is a VF as its driver sees it, and
has as parts ``config_space``, ``mailbox``, ``receive``, ``transmit``, ``interrupts`` and
``statistics``.  ``port`` models the port (PF) with its driver, and ``device`` joins a VF to that
model.  ``memory`` is the guest's; ``dma_log`` keeps what the VF did there; ``misbehaviour`` has the
faults that a twin can be given.
"""
