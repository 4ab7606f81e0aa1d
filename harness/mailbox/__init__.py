"""What VFs say to the driver of an 82599 port, and how that driver and our model of it answer.

`sequences` is the list.  `driver` plays it to a port's own driver, on a host; `model` plays it to
``harness.twin``; `transcript` says where the two differ.
"""
