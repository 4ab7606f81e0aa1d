"""The harness is a pytest plugin, which pytest11 in pyproject.toml makes known to pytest."""
