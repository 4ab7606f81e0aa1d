"""Measure what a live migration does to a guest that owns an Intel 82599 virtual function."""

__version__ = "0.1.0"
