"""What C headers say, and nothing else: one module per source, the C names of fields kept.

Sizes are those of 64-bit Linux (x86-64 and AArch64 agree on all of them).
"""
