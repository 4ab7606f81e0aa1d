"""A test asks for these by name: the lab, a guest that moves, flows, and moving the guest."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.errors import HarnessError, LabError, RestoreError, UsageError
from harness.plugin.ending import KEPT, MACHINES, at_fault, how_to_look
from harness.plugin.guests import Guests
from harness.plugin.hooks import RECORD, WORKER
from harness.plugin.options import SETTINGS
from harness.plugin.progress import progress

if TYPE_CHECKING:
    from harness.analysis.audit import Audited
    from harness.analysis.measured import Direction
    from harness.audit.ways import Way
    from harness.remote import Host
    from harness.run.lab import Lab
    from harness.run.moving import MovingGuest
    from harness.run.record import Case
    from harness.run.verbs import MakeFlow, Migrate, StopVf
    from harness.traffic.flow import Flow


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab, leased for this run; started first if it is an emulated one that is not up."""
    from harness.lab.chip_vf import chip_vf
    from harness.lab.emulated import keep_words
    from harness.lab.use import ready
    from harness.run.lab import taken
    from harness.run.provenance import provenance

    config = request.config
    if hasattr(config, WORKER):
        raise UsageError(
            "tests of the lab cannot run side by side",
            because="a lab is lent to one process at a time, and this is a worker of many",
            fix="run them without -n (--numprocesses)",
        )
    settings, say = config.stash[SETTINGS], progress(config)
    keeps = (lambda: bool(config.stash.get(KEPT, []))) if settings.keep_on_failure else None
    with at_fault(config, LabError), ExitStack() as taking:
        taking.enter_context(_commands_logged(config.stash[RECORD].folder))
        topology, image = taking.enter_context(ready(settings.topology, say, keeps=keeps))
        taking.callback(keep_words, topology, config.stash[RECORD].folder / "lab")
        lab = taking.enter_context(taken(topology, image, say, partial(chip_vf, topology)))
        config.stash[RECORD].provenance = provenance(lab)
        config.stash[MACHINES] = lab.machines
        given_back = taking.pop_all()
    yield lab
    del config.stash[MACHINES]
    kept = config.stash.get(KEPT, [])
    say(how_to_look(topology, kept) if kept else "putting the lab back")
    with at_fault(config, RestoreError):
        given_back.close()


@pytest.fixture(scope="session")
def hosts(lab: Lab) -> list[Host]:
    """The lab's hosts, in the order of its topology."""
    return list(lab.hosts.values())


@pytest.fixture(scope="session")
def port_pair(request: pytest.FixtureRequest, lab: Lab) -> Mapping[str, str]:
    """The port of each host that the test is about, by the host's name.

    Where the hosts have several on the peer's wire, each test runs once for each pair.
    """
    pair: Mapping[str, str] = getattr(request, "param", lab.topology.port_pairs[0])
    return pair


@pytest.fixture(scope="session")
def guests(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Guests]:
    """The guests of the run, one at a time."""
    guests = Guests(request.config, lab)
    yield guests
    guests.end()


@pytest.fixture
def no_guest(guests: Guests, port_pair: Mapping[str, str]) -> None:
    """No guest is there, so that a test has the ports for itself.

    The fixture asks for *port_pair* because of pytest's order: where tests run for each pair of
    ports, pytest runs a module's tests without a pair last, while its guest is still there.
    """
    del port_pair
    guests.end()


@pytest.fixture(scope="module")
def guest(guests: Guests, port_pair: Mapping[str, str]) -> Iterator[MovingGuest]:
    """A guest with a VF, shared by modules; wherever its last migration left it."""
    with guests.shared(port_pair, standby=True) as guest:
        yield guest


@pytest.fixture
def bare_guest(guests: Guests, port_pair: Mapping[str, str]) -> Iterator[MovingGuest]:
    """A guest with a VF and no standby, booted for each test, which not every guest survives."""
    with guests.own(port_pair, standby=False) as guest:
        yield guest


@pytest.fixture(scope="module")
def staying_guest(
    request: pytest.FixtureRequest, guests: Guests, port_pair: Mapping[str, str]
) -> Iterator[MovingGuest]:
    """A guest with a VF and no standby, shared by modules whose tests do not move the guest.

    Its parameter, if it has one, is the `Trigger` that its machine is built with.
    """
    kind = {"trigger": request.param} if hasattr(request, "param") else {}
    with guests.shared(port_pair, standby=False, **kind) as guest:
        yield guest


@pytest.fixture(scope="module")
def two_vf_guest(guests: Guests, port_pair: Mapping[str, str]) -> Iterator[MovingGuest]:
    """A guest with a VF and no standby, which can take a second VF of the same port."""
    with guests.own(port_pair, vfs=2, standby=False) as guest:
        yield guest


@pytest.fixture
def port_guest(guests: Guests, port_pair: Mapping[str, str]) -> Iterator[MovingGuest]:
    """A guest with a port that QEMU emulates, and a VF that it made there, booted for each test."""
    with guests.own(port_pair, vfs=0, standby=False, emulated_port=True) as guest:
        yield guest


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """The test's own folder among the artifacts; its commands are logged there."""
    case = request.config.stash[RECORD].case(request.node.nodeid)
    with _commands_logged(case.folder):
        yield case


@pytest.fixture(autouse=True)
def every_test_of_the_lab_is_a_case(request: pytest.FixtureRequest) -> None:
    """A test that measures nothing is in results.json too, so that its failure is seen there."""
    if "lab" in request.fixturenames and RECORD in request.config.stash:
        request.getfixturevalue("case")


@contextmanager
def _commands_logged(folder: Path) -> Iterator[None]:
    """Write what is run on hosts meanwhile to ``commands.log`` in *folder*."""
    commands = logging.getLogger("harness.commands")
    handler = logging.FileHandler(folder / "commands.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    commands.addHandler(handler)
    commands.setLevel(logging.INFO)
    try:
        yield
    finally:
        commands.removeHandler(handler)
        handler.close()


@pytest.fixture
def flow(lab: Lab) -> MakeFlow:
    """A flow by its frame size and direction; see `MakeFlow`."""
    from harness.traffic.flow import Flow

    def make(frame_bytes: int, direction: Direction = "round-trip", rate_pps: float = 0) -> Flow:
        rate = rate_pps or lab.topology.limits.rate_pps
        return Flow(f"{direction}-{frame_bytes}", direction, frame_bytes, rate, next(_numbers))

    return make


@pytest.fixture
def migrate(request: pytest.FixtureRequest, lab: Lab, case: Case) -> Migrate:
    """Move a guest to the other host under flows, judge, keep and report it; see `Migrate`."""
    from harness.plugin.migrating import Mover

    return Mover(request.node, lab, case)


@pytest.fixture
def audit(flow: MakeFlow, case: Case, lab: Lab) -> StopVf:
    """Stop a guest's VF in a way, look, and give it back; see `StopVf`."""
    from harness.analysis.audit_records import NOT_BACK

    def stop(guest: MovingGuest, way: Way) -> Audited:
        try:
            with case.said(case.audit_suffix(way.value)) as raw:
                records = guest.audit(way, flow(9014), raw)
        except (HarnessError, OSError) as broken:  # the next test may find the VF stopped
            why = str(broken).partition("\n")[0]
            guest.replace(f"the audit broke off: {why}")
            raise
        try:
            return case.keep_audit(records, lab.limits)
        finally:
            if records.back == NOT_BACK:
                guest.replace("the VF did not come back")

    return stop


_numbers = itertools.count(1)
"""Each flow of this process has its own number, so frames of an earlier flow are told apart."""
