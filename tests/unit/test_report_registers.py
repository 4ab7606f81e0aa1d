"""Described registers in the report: readable in its table, and marked in its figure."""

from __future__ import annotations

from pathlib import Path

from synthetic import FAILOVER_EVENTS, event, failover
from test_report_page import recorded_run

from harness.report.layout import key_events
from harness.report.page import write_page

FIRST = event(-900, "config:alder", "msix.CONTROL = ON", vf="0000:01:10.0", offset=0x72, was=None,
              now=0x8002, via="vfio")  # fmt: skip
OFF = event(270, "config:alder", "msix.CONTROL = OFF", vf="0000:01:10.0", offset=0x72, was=0x8002,
            now=2, via="vfio")  # fmt: skip


def test_the_table_has_registers_in_hexadecimal(tmp_path: Path) -> None:
    """As the documents have them that describe them; other sources' numbers are what they were."""
    other = event(5, "guest", "counted", was=32)
    recorded_run(tmp_path, failover(events=[*FAILOVER_EVENTS, FIRST, OFF, other]))
    page = write_page(tmp_path).read_text().replace("&#34;", '"')
    assert "<td>config:alder</td>" in page
    assert "<td>msix.CONTROL = OFF</td>" in page
    assert '"offset": "0x72", "was": "0x8002", "now": "0x2", "via": "vfio"' in page
    assert '"was": null, "now": "0x8002"' in page
    assert '"was": 32}' in page


def test_a_change_is_marked_in_the_figure_and_what_was_there_before_is_not(
    tmp_path: Path,
) -> None:
    """The first value of each register, on both hosts, would leave no room for what happened."""
    results = recorded_run(tmp_path, failover(events=[*FAILOVER_EVENTS, FIRST, OFF]))
    marked = key_events(results.tests[0].migrations[0])
    assert (0.27, "msix.CONTROL = OFF", "config:alder") in marked
    assert "msix.CONTROL = ON" not in [name for _, name, _ in marked]
