"""A migration's figures as JUnit properties, which CI systems keep and plot."""

from __future__ import annotations

import re

from harness.report.results import Migration


def properties(migration: Migration, *, number: int = 1) -> list[tuple[str, str]]:
    """List (name, value) for ``request.node.user_properties``, which end up in junit.xml.

    *number* counts the migrations of a test from 1; the names of later ones end in it.  A flow
    that never came back has "open" as its outage, which no tool takes for a small number.  A figure
    that QEMU did not give is left out.  ``reason`` has a line for each reason of the verdict.
    """
    suffix = "" if number == 1 else f"_{number}"
    found = [
        ("verdict", migration.verdict),
        ("as_expected", "yes" if migration.as_expected else "no"),
        ("scheme", migration.scheme),
        ("status", migration.status),
        ("qemu_downtime_ms", _number(migration.qemu.downtime_ms)),
        ("qemu_total_ms", _number(migration.qemu.total_ms)),
    ]
    found.append(("reason", "\n".join(migration.reasons)))
    found.append(("qemu_reason", migration.qemu_reason or ""))
    for flow in migration.flows:
        name = re.sub(r"\W", "_", flow.name)
        is_open = flow.longest_outage_ms is None
        found += [
            (f"longest_outage_ms_{name}", "open" if is_open else _number(flow.longest_outage_ms)),
            (f"total_outage_ms_{name}", "open" if is_open else _number(flow.total_outage_ms)),
            (f"resolution_ms_{name}", _number(flow.resolution_ms)),
            (f"lost_{name}", str(flow.lost)),
            (f"corrupted_{name}", str(flow.corrupted)),
        ]
    return [(f"{name}{suffix}", value) for name, value in found if value]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}" if abs(value) < 1e5 else f"{value:.0f}"
