"""The embedded lab has two emulated hosts, their wire and a peer, on the machine that runs tests.

Only this package acts on a lab being emulated.
"""
