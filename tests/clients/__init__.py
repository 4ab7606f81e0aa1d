"""Somebody else's programs as users of the software 82599."""
