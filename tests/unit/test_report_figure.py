"""The figure of a migration."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from synthetic import (
    FAILOVER_CUTS,
    FAILOVER_EVENTS,
    Cut,
    event,
    failover,
    flow,
    refused,
)
from test_report_page import three_flows

from harness.analysis.verdict import Limits
from harness.report import tables, words
from harness.report.entry import migration_result
from harness.report.figure import migration_figure
from harness.report.layout import extent


def test_the_figure_names_phases_outages_and_both_down_times() -> None:
    """Each is text that can be read and searched, not an outline."""
    recorded = migration_result(failover())
    svg = migration_figure(recorded.migration, recorded.packets, key="k")
    texts = "".join(ElementTree.fromstring(svg).itertext())
    for expected in (
        "pre-copy 4.24 s",
        "stop 1.90 s",
        "unplug 280 ms",
        "QEMU: 224 ms",
        "users: 1.91 s (jumbo)",
        "1.91 s",
        "UNPLUG_PRIMARY (alder)",
        "hand-off: filter cleared (alder)",
        "BME alder",
        "guest: eth2 gone",
        "gone",
        "410 of 2000 lost",
    ):
        assert expected in texts, expected


def test_the_figure_follows_the_pages_colours() -> None:
    """A colour left as it is would be black text on a dark page."""
    recorded = migration_result(failover())
    svg = migration_figure(recorded.migration, recorded.packets, key="k")
    assert not re.search(r"#0([1-7])0(?:\1)0(?:\1)", svg)
    assert "var(--ink, #1d2733)" in svg
    assert "DejaVu" not in svg


def test_a_figure_shows_a_flow_that_never_came_back() -> None:
    dead = migration_result(failover(flows=[flow(cuts=[Cut(279, 9999)])]))
    svg = migration_figure(dead.migration, dead.packets, key="k")
    assert "never came back" in svg


@pytest.mark.parametrize("rate", [10, 5000])
def test_a_flow_of_any_rate_has_a_bounded_figure(rate: int) -> None:
    """5,000 a second for ten seconds would be megabytes of dots."""
    recorded = migration_result(failover(flows=[flow(rate_pps=rate, cuts=FAILOVER_CUTS)]))
    assert len(migration_figure(recorded.migration, recorded.packets, key="k")) < 100_000


def test_one_slow_answer_among_many_is_still_a_dot() -> None:
    """Thinning by picking every n-th frame would lose the one that matters."""
    recorded = migration_result(failover(flows=[flow(rate_pps=5000, delayed_ms={20_000: 700.0})]))
    svg = migration_figure(recorded.migration, recorded.packets, key="k")
    assert "1 s" in "".join(ElementTree.fromstring(svg).itertext())


def test_an_outage_that_may_belong_to_two_phases_says_so() -> None:
    """The cut at 279 ms and the release at 280 ms lie within one interval of the flow."""
    rows = tables.outage_rows(migration_result(failover()).migration)
    assert (rows[0].phase, rows[0].also) == ("unplug", "pre-copy")
    assert (rows[2].phase, rows[2].also) == ("replug", "")


def test_the_error_bar_is_written_by_direction() -> None:
    """A gap between sent frames overstates; a guest's silence may go either way."""
    flows = {f.name: f for f in migration_result(three_flows()).migration.flows}
    assert words.error_bar(flows["jumbo"]) == "+0 / \u221210 ms"
    assert words.error_bar(flows["up"]) == "\u00b1 5.0 ms"


def test_the_figure_of_a_refusal_shows_that_nothing_came_of_it() -> None:
    """All of it: a tenth of a second around the asking would hide what came after."""
    recorded = migration_result(refused(), Limits(status="refused"))
    assert extent(recorded.migration) == (-1.0, 8.995)
    svg = migration_figure(recorded.migration, recorded.packets, key="k")
    texts = "".join(ElementTree.fromstring(svg).itertext())
    for expected in ("migrate refused", "after", "no outage", "BME alder"):
        assert expected in texts, expected


def test_the_figure_has_the_migration_states_of_a_vf() -> None:
    """Where QEMU drives, they are the steps of the migration."""
    state = event(4525, "vfio:alder", "vfio state STOP_COPY", was="RUNNING")
    recorded = migration_result(failover(events=[*FAILOVER_EVENTS, state]))
    svg = migration_figure(recorded.migration, recorded.packets, key="k")
    assert "vfio state STOP_COPY (alder)" in "".join(ElementTree.fromstring(svg).itertext())
