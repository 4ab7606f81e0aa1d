"""One host's devices: its ports, the VFs made on them, and the bridge that the standby uses."""
