"""The program that runs on hosts, on the peer and in guests.

Python 3.9 or newer, standard library and ``harness.uapi`` only; sent as one zipapp.
"""
