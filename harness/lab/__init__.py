"""The embedded lab: two emulated hosts, their wire and a peer, on the machine that runs the tests.

Nothing outside this package knows that a lab is emulated.
"""
