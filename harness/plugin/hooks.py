"""How pytest is told of the lab: options, needs, reports, exit codes."""

from __future__ import annotations

import errno
from collections.abc import Generator
from typing import Any

import pytest

from harness.errors import HarnessError, LabError, UsageError, disk_full
from harness.plugin.ending import EXIT_CODE, end_if_gone, keep_lab
from harness.plugin.options import MARKERS, SETTINGS, add_options, is_set, read_settings
from harness.plugin.ordering import put_together
from harness.plugin.plan import plan
from harness.plugin.progress import progress
from harness.plugin.untested import UNMET, untested
from harness.shipped import shipped

RECORD = pytest.StashKey[Any]()
"""The run's ``harness.run.record.Record``; only where a test of the lab is to run."""

RESULTS = pytest.StashKey[Any]()
"""What ``RECORD`` came to; written before pytest decides whether to print a summary."""

UNTESTED = pytest.StashKey[str]()
"""One line names the chosen subjects that this lab cannot test."""

SUITE = shipped("tests/lab")
"""pytest runs this folder if the user names a lab and no file."""

WORKER = "workerinput"
"""Only a worker of pytest-xdist has this attribute in its config."""


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for marker, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{marker}: {meaning}")
    if config.option.help or config.option.markers:
        return  # these are the same for every lab, so that a faulty topology must not hide them
    try:
        config.stash[SETTINGS] = read_settings(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    if _wants_suite(config):
        config.args = [str(SUITE)]
    if config.stash[SETTINGS].dry_run:
        config.option.dist = "no"  # workers of pytest-xdist would run the tests


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    pairs = metafunc.config.stash[SETTINGS].topology.port_pairs
    if len(pairs) > 1 and "port_pair" in metafunc.fixturenames:
        names = ["-".join(dict.fromkeys(pair.values())) for pair in pairs]
        metafunc.parametrize("port_pair", pairs, ids=names, indirect=True)
    iterations = metafunc.config.stash[SETTINGS].iterations
    if iterations > 1 and "lab" in metafunc.fixturenames:
        metafunc.fixturenames.append("iteration")
        metafunc.parametrize("iteration", range(1, iterations + 1))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    topology = config.stash[SETTINGS].topology
    for item in items:
        if _uses_lab(item) and config.pluginmanager.hasplugin("timeout"):
            item.add_marker(pytest.mark.timeout(0))  # each wait in it has a deadline of its own
        for marker in item.iter_markers("needs"):
            try:
                unmet = topology.unmet(map(str, marker.args))
            except UsageError as error:
                raise pytest.UsageError(f"{item.nodeid}: {error}") from None
            item.stash.setdefault(UNMET, []).extend(unmet)
    put_together(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make the run's folder and its JUnit file, if a test of the lab is to run."""
    config = session.config
    settings = config.stash[SETTINGS]
    config.stash[UNTESTED] = untested(settings.topology.name, session.items)
    if config.option.collectonly or settings.dry_run or not _lab_tests(session):
        return
    if hasattr(config, WORKER):
        return  # the fixture `lab` refuses there
    from _pytest.junitxml import LogXML  # there is no public way to choose the file this late

    from harness.run.record import Record

    try:
        record = config.stash[RECORD] = Record(settings.artifacts, settings.topology)
    except OSError as error:
        refusal = UsageError(
            f"{settings.artifacts}: the folder of this run cannot be made there",
            because=f"{error.filename}: {error.strerror}",
            fix="name another folder with --artifacts, or try again",
        )
        raise pytest.UsageError(str(refusal)) from None
    junit = LogXML(
        str(record.folder / "junit.xml"), None, "vf-harness", "no", "total", "xunit1", True
    )
    config.pluginmanager.register(junit, "vf-harness-junit")
    junit.pytest_sessionstart()


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    settings = session.config.stash[SETTINGS]
    if not settings.dry_run:
        return None
    for line in plan(settings.topology, len(_lab_tests(session))):
        print(line)
    return True


def pytest_runtest_setup(item: pytest.Item) -> None:
    unmet = [str(each) for each in item.stash.get(UNMET, [])]
    if unmet and item.config.stash[SETTINGS].require_all:
        pytest.fail("; ".join(unmet), pytrace=False)
    if unmet:
        pytest.skip("; ".join(unmet))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo and (words := _words(call.excinfo.value)):
        report.longrepr = words  # they say what to do; commands.log has the rest
    if report.failed:
        end_if_gone(item.session)
        if item.config.stash[SETTINGS].keep_on_failure and _uses_lab(item):
            keep_lab(item.session, progress(item.config))
    record = item.config.stash.get(RECORD, None)
    if record and report.skipped and _uses_lab(item):
        record.case(item.nodeid)  # that it did not run must not go unseen either
    if record and item.nodeid in record.cases:
        case = record.cases[item.nodeid]
        if report.when == "call" or not report.passed:
            case.outcome = report.outcome
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    record = session.config.stash.get(RECORD, None)
    if record:
        try:
            session.config.stash[RESULTS] = record.finish()
        except OSError as error:
            print(f"\n{_words(error) or f'the results could not be written: {error}'}")
            session.config.stash[EXIT_CODE] = LabError.exit_code
    code = session.config.stash.get(EXIT_CODE, None)
    if code is not None:
        session.exitstatus = code


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    record = config.stash.get(RECORD, None)
    results = config.stash.get(RESULTS, None)
    if record is not None and results is not None:
        from rich.console import Console

        from harness.report.summary import summary

        terminalreporter.section("migrations")
        summary(results, Console())
        terminalreporter.line(f"report: {record.folder / 'report.html'}")
    if not config.option.collectonly and (line := config.stash.get(UNTESTED, "")):
        terminalreporter.line(line)


def _wants_suite(config: pytest.Config) -> bool:
    """Say whether the user names a lab and no file, at the top of our tree or without own tests."""
    given, here = config.invocation_params.args, config.invocation_params.dir
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        return False
    if here / "tests/lab" == SUITE:
        has_own = False
    else:
        own = ("test_*.py", "*_test.py", "conftest.py", "test", "tests")
        has_own = config.inipath is not None or any(any(here.glob(each)) for each in own)
    names_lab = any(each.split("=")[0] == "--lab" for each in given) or is_set("LAB")
    return names_lab and not has_own


def _words(raised: BaseException) -> str:
    """What an error of ours says, or several together; nothing of one that is not ours."""
    match raised:
        case BaseExceptionGroup():
            each = [_words(error) for error in raised.exceptions]
            return "\n".join(each) if all(each) else ""
        case HarnessError():
            return str(raised)
        case pytest.exit.Exception():
            return "\n".join([str(raised).strip(), *getattr(raised, "__notes__", [])])
        case OSError(errno=errno.ENOSPC):
            return str(disk_full(raised))
    return ""


def _lab_tests(session: pytest.Session) -> list[pytest.Item]:
    return [item for item in session.items if _uses_lab(item) and not item.stash.get(UNMET, [])]


def _uses_lab(item: pytest.Item) -> bool:
    return "lab" in getattr(item, "fixturenames", ())
