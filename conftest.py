"""Loads the harness as a pytest plugin; everything else is in ``harness.plugin``."""

pytest_plugins = ["harness.plugin"]
