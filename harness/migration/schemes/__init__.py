"""Ways to migrate, one file each."""

SCHEMES = {
    "failover": "virtio-net failover, QEMU unplugs the VF",
    "inplace": "the guest keeps its VF",
}
"""Schemes by which tests can be selected: pytest's marker, and what its help says."""
