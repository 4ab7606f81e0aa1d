"""The embedded lab has two emulated hosts, their wire and a peer, on the machine that runs tests.

Outside this package the topology's checks and needs, --host-kernel, --dry-run and the record of a
run ask whether a lab is emulated.
"""
