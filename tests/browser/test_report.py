"""The report as a person meets it: opened from a disk, on a desk or in a hand, by day or night."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page

from harness.report.page import render, write_page
from harness.report.reading import read_results
from harness.report.results import CaseResult, Migration, write_results

EXAMPLE = Path(__file__).parents[2] / "reports" / "example"
DESK, HAND = 1280, 390  # width in CSS pixels
LONG = "test_a_vf_that_masters_the_bus_while_pages_are_copied_fails[marked-then-stopped-by-suspend]"
NO_FIGURES = {f"m{number}": "" for number in range(1, 5)}
READABLE = 4.5  # WCAG 2.2, success criterion 1.4.3

CONTRASTS = (Path(__file__).parent / "contrasts.js").read_text()
OVERLAPS = (Path(__file__).parent / "overlaps.js").read_text()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with the example's migration three times, each with another verdict."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    results = read_results(folder)
    (case,) = results.tests
    cases = [case, judged(case, "fail", "failed"), judged(case, "invalid", "failed")]
    write_results(results.model_copy(update={"tests": cases}), folder)
    return write_page(folder)


def judged(case: CaseResult, word: Literal["fail", "invalid"], outcome: str) -> CaseResult:
    nodeid = f"{case.nodeid.partition('[')[0]}_{word}"
    return case.model_copy(update={"nodeid": nodeid, "verdict": word, "outcome": outcome})


def never_back(case: CaseResult) -> Migration:
    """Return the migration of *case* with a first outage that never ended."""
    (migration,) = case.migrations
    flow = migration.flows[0]
    gone = flow.outages[0].model_copy(update={"end_ms": None})
    open_flow = flow.model_copy(update={"outages": [gone], "longest_outage_ms": None})
    return migration.model_copy(update={"flows": [open_flow]})


@pytest.fixture
def opened(page: Page, report: Path) -> Page:
    """The report in a window."""
    page.goto(report.as_uri())
    return page


def unfold(page: Page) -> None:
    """Open everything that can be."""
    folded = page.locator("details")
    assert folded.count() > 0
    folded.evaluate_all("all => all.forEach(each => { each.open = true })")


def test_it_opens_without_a_fault_and_asks_for_nothing_else(page: Page, report: Path) -> None:
    """A mail attachment on a machine without network: one file is all there is."""
    asked, faults = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(report.as_uri(), wait_until="load")
    assert asked == [report.as_uri()]
    assert faults == []


def test_the_answer_stands_on_the_first_screen(opened: Page) -> None:
    """QEMU's figure beside the users', without scrolling: it is what the page is opened for."""
    table = opened.locator("table.verdicts")
    assert "QEMU says\tUsers felt" in table.locator("thead").inner_text()
    figures = table.locator("td.felt").all()
    assert len(figures) == 3
    for figure in figures:
        box = figure.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < 800
        assert figure.inner_text().endswith(("ms", " s"))


@pytest.mark.parametrize("width", [DESK, HAND])
def test_it_never_scrolls_sideways(opened: Page, width: int) -> None:
    """Wide tables and the figure scroll within themselves; text that runs out is not read."""
    opened.set_viewport_size({"width": width, "height": 800})
    unfold(opened)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1180, DESK])
def test_all_columns_of_the_verdicts_are_seen(page: Page, report: Path, width: int) -> None:
    """What users felt stands last in its row; a long name of a test must not push it out."""
    folder = report.parent
    results = read_results(folder)
    cases = [
        case.model_copy(update={"nodeid": f"{case.nodeid.partition('::')[0]}::{LONG}_{number}"})
        for number, case in enumerate(results.tests)
    ]
    cases[0] = cases[0].model_copy(update={"migrations": 2 * [never_back(cases[0])]})
    text = render(results.model_copy(update={"tests": cases}), figures=NO_FIGURES, files={})
    page.set_viewport_size({"width": width, "height": 800})
    page.set_content(text)
    table = page.locator(".wide:has(table.verdicts)")
    assert table.evaluate("each => each.scrollWidth - each.clientWidth") <= 0


def test_the_figure_is_drawn_with_its_words_inside_and_apart(opened: Page) -> None:
    """Labels of events and outages that lie on each other cannot be read."""
    figure = opened.locator("figure svg").first
    box = figure.bounding_box()
    assert box is not None
    assert box["width"] > 800
    assert box["height"] > 200
    assert figure.evaluate(OVERLAPS) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_can_be_read(opened: Page, scheme: Literal["light", "dark"]) -> None:
    """Text stands out from what is behind it, in the page and in its figure."""
    opened.emulate_media(color_scheme=scheme)
    unfold(opened)
    seen = opened.evaluate(CONTRASTS)
    assert len(seen) > 100, "nothing was looked at"
    assert [each for each in seen if each["ratio"] < READABLE] == []


def test_a_name_leads_to_its_migration(opened: Page) -> None:
    """From the row that failed to its reasons in one click."""
    opened.locator("table.verdicts tr.fail a").click()
    title = opened.locator("section.migration:target h2")
    assert "fail" in title.inner_text()
    box = title.bounding_box()
    assert box is not None
    assert 0 <= box["y"] < 400
