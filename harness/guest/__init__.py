"""A guest: what it is (spec), how QEMU is told (command line), one process of it (instance)."""
