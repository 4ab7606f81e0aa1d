"""Ways to migrate, one file each."""
