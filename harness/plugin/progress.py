"""Lines of progress are printed on the terminal while a test runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def progress(config: pytest.Config) -> Callable[[str], None]:
    """Return a function that prints a line on the terminal at once, whatever pytest captures."""
    capture = config.pluginmanager.getplugin("capturemanager")
    reporter = config.pluginmanager.getplugin("terminalreporter")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.line(f"  {text}")

    return say
