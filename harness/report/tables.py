"""The rows of the page's tables, as text; the template only lays them out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.analysis.measured import CONFIG
from harness.report.results import (
    CaseResult,
    Migration,
    Results,
    TimelineEvent,
)
from harness.report.words import error_bar, felt, length, ratio
from harness.uapi.pci_regs import NO_ANSWER

LONGEST_SHOWN = 12  # outages of a flow; random loss can make thousands
ROWS_SHOWN = 300  # of events and of BME samples; the files have them all
OWN_ASSERTIONS = "the test's own assertions failed: see junit.xml"
WHY = {
    "fail": "Why this failed",
    "invalid": "Why there is no result",
    "fail, as expected": "Why this failed, as its test expected",
    "invalid, as expected": "Why there is no result, as its test expected",
    "fail, not counted": "Why this failed; its test expected nothing of it, or had it made again",
    "invalid, not counted": "Why there is no result; it was made again, or nothing was expected",
}
DATA_SHOWN = 160  # characters of an event's data

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Summary:
    """One row of the table at the top.

    word     how the migration counts: pass, fail, invalid or skipped
    verdict  what it came to, in words, such as ``fail, as expected``
    why      why it did not pass, or was not to, a sentence each
    """

    word: str
    verdict: str
    why: tuple[str, ...]
    case: CaseResult
    migration: Migration
    number: int  # of the migration within its test, from 1
    key: str
    frames: str
    felt: str
    ratio: str | None
    lost: int


@dataclass(frozen=True, slots=True)
class OutageRow:
    """One outage, written out; *also* names phases in which it may have begun as well."""

    flow: str
    phase: str
    also: str
    start_ms: float
    length: str
    error_bar: str
    lost: int


def word_of(case: CaseResult) -> str:
    """Say how a test ended: pass, fail, invalid, skipped; its own assertions count too.

    Only what pytest calls passed can be a pass: a test that was cut off has no such outcome.
    """
    if case.verdict == "invalid":
        return "invalid"
    if case.verdict == "fail" or case.outcome in ("failed", "error"):
        return "fail"
    return "pass" if case.outcome == "passed" else "skipped"


def summaries(results: Results) -> list[Summary]:
    """List the migrations of a run, those to look at first: fail, invalid, then the others."""
    rank = {"fail": 0, "invalid": 1, "pass": 2, "skipped": 3}
    found = [
        (case, migration, number)
        for case in results.tests
        for number, migration in enumerate(case.migrations, start=1)
    ]
    words = [_word(case, migration) for case, migration, _ in found]
    rows = [
        Summary(
            word=word,
            verdict=_verdict(word, migration),
            why=_why(word, migration),
            case=case,
            migration=migration,
            number=number,
            key=f"m{index}",
            frames=_frames(migration),
            felt=felt(migration),
            ratio=ratio(migration),
            lost=sum(flow.lost for flow in migration.flows),
        )
        for index, (word, (case, migration, number)) in enumerate(
            zip(words, found, strict=True), start=1
        )
    ]
    return sorted(rows, key=lambda row: rank[row.word])


def outage_rows(migration: Migration) -> list[OutageRow]:
    """List the outages of all flows in time order; of each flow the longest LONGEST_SHOWN."""
    rows = []
    for flow in migration.flows:
        longest = sorted(flow.outages, key=lambda o: -(o.length_ms or float("inf")))
        for outage in longest[:LONGEST_SHOWN]:
            row = OutageRow(
                flow=flow.name,
                phase=outage.phase,
                also=" or ".join(n for n in outage.candidates or () if n != outage.phase),
                start_ms=outage.start_ms,
                length=length(outage),
                error_bar="" if outage.end_ms is None else error_bar(flow),
                lost=outage.lost,
            )
            rows.append(row)
    return sorted(rows, key=lambda row: row.start_ms)


def outages_left_out(migration: Migration) -> int:
    """Count the outages that ``outage_rows`` does not list."""
    return sum(max(len(flow.outages) - LONGEST_SHOWN, 0) for flow in migration.flows)


def shown(rows: Sequence[T]) -> Sequence[T]:
    """Cut a long table short; the page says so and names the file with all of it."""
    return rows[:ROWS_SHOWN]


def data_text(event: TimelineEvent) -> str:
    """Write an event's data in one line; registers as their documents do, in hexadecimal."""
    data = event.data
    if event.source.startswith(f"{CONFIG}:"):
        data = {name: hex(each) if isinstance(each, int) else each for name, each in data.items()}
    text = json.dumps(data, ensure_ascii=False, default=str) if data else ""
    return text if len(text) <= DATA_SHOWN else text[: DATA_SHOWN - 1] + "\u2026"


def bme_text(command: int, bme: bool) -> str:
    """Write what a command register says of BME."""
    return "gone" if command == NO_ANSWER else str(int(bme))


def _word(case: CaseResult, migration: Migration) -> str:
    """Return how the migration counts, or where that is a pass, how its test ended.

    A test that failed by its own assertions fails its only migration.  Of several migrations nobody
    can tell which one an assertion was about, unless all of them passed.  A migration of which the
    test expected nothing is skipped if it did not pass: it was made again, or anything was right.
    """
    if migration.counts_as != "pass":
        return migration.counts_as
    alone = len(case.migrations) == 1 or case.verdict == "pass"
    word = word_of(case) if alone else "pass"
    does_not_count = migration.verdict != "pass" and migration.expected is None
    return "skipped" if word == "pass" and does_not_count else word


def _verdict(word: str, migration: Migration) -> str:
    """Write the verdict of a migration that counts as *word*."""
    if word not in ("pass", "skipped") or migration.verdict == "pass":
        return word
    return f"{migration.verdict}, {'as expected' if migration.expected else 'not counted'}"


def _why(word: str, migration: Migration) -> tuple[str, ...]:
    """List why a migration that counts as *word* did not pass, or was not to; empty for a pass.

    The reasons that its test expected come first.
    """
    texts = migration.expected.because if migration.expected else ()
    told = tuple(
        sorted(migration.reasons, key=lambda reason: not any(text in reason for text in texts))
    )
    if migration.counts_as == "pass" and word in ("fail", "invalid"):
        return (OWN_ASSERTIONS, *told)
    if migration.expected and not migration.as_expected:
        expected = migration.expected
        because = f", with {' and '.join(map(repr, expected.because))}" if expected.because else ""
        told = (*told, f"its test expected the verdict {expected.verdict}{because}")
    return told


def _frames(migration: Migration) -> str:
    return ", ".join(str(size) for size in sorted({flow.frame_bytes for flow in migration.flows}))
