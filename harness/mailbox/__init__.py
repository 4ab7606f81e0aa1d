"""Mailbox messages of a VF are played to the driver of an 82599 port and to our model of it.

`sequences` lists the messages.  `driver` plays them to a port's own driver, on a host; `model`
plays them to ``harness.twin``; `transcript` says where the answers differ.
"""
