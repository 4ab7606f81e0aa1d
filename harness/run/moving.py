"""A guest that can be moved between two hosts, there and back, each move measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.analysis.audit_records import AuditRecords
from harness.audit.conduct import audit
from harness.audit.ways import Way
from harness.errors import GuestError, RemoteError, UsageError
from harness.guest.instance import Instance
from harness.guest.lent_vf import wait_for_lent_vf
from harness.guest.spec import GuestSpec
from harness.host.port_side import PortSide
from harness.host.twin import Twin
from harness.host.vf import NO_MAC, Vf
from harness.host.virtual_function import VirtualFunction
from harness.migration.experiment import Conducted, Ends, Experiment, Watch
from harness.migration.handoff import HandOff
from harness.migration.move import Fault, Moment, Move, check_faults, deadline_for
from harness.migration.raw import Raw
from harness.migration.scheme import Scheme
from harness.run.berth import Berth, berth_on
from harness.run.lab import Lab
from harness.run.launching import Launcher
from harness.together import together
from harness.traffic.flow import Endpoint, Flow, FlowRecords
from harness.traffic.running import start
from harness.waiting import let_pass

ANSWER_SECONDS = 20


class MovingGuest:
    """A guest and the two berths it moves between; *instance* is its process now.

    *own_vf* is the VF that a guest with an emulated port has made there.
    """

    def __init__(
        self, lab: Lab, spec: GuestSpec, berths: dict[str, Berth], stack: ExitStack, logs: Path
    ) -> None:
        self._lab = lab
        self._berths = berths
        self._launcher = Launcher(lab, spec, stack, logs)
        self.spec = spec
        here = next(iter(berths.values()))
        self._ending, self.instance, self.machine, self.own_vf = self._launcher.boot(here)
        stack.callback(lambda: self.machine.close())

    def migrate(
        self,
        flows: Sequence[Flow],
        raw: Raw,
        *,
        by: Scheme,
        at: Mapping[Moment, Fault] | None = None,
        observe: bool = True,
        compare_memory: bool = False,
    ) -> Conducted:
        """Move to the other host by the scheme *by* while *flows* run; return what was measured.

        at              faults that a test puts in, by the moment
        observe         without it nobody samples BME, and nobody clears the filter on the source:
                        it shows what observing costs, and nothing else
        compare_memory  whether both memories are compared page by page, which lengthens the stop;
                        some schemes always compare them

        The old instance is ended afterwards; `instance` is the successor.  Raises UsageError for a
        guest that the scheme cannot move, and what the harness cannot go on after; that QEMU failed
        is in the outcome.  Either way *raw* gets what was said from when both ends were there.  A
        guest that does not answer any more, or has lost its VF, is replaced by another one first.
        """
        compares, topology = compare_memory or by.always_compares, self._lab.topology
        check_faults(at or {}, compares=compares)
        by.check(self.spec, self.instance.vf, self.other_vf)
        self.find_with_vf()
        source, berth = self.instance, self._other_berth
        hand_off, log = by.hand_off(source, berth.vf), self._lab.software_of(source.vf)
        comparison = by.comparison(source, log) if compares else None
        self._lab.renew(deadline_for(source).seconds)
        with self._prepared(hand_off), self._successor_on(berth, paused=compares) as successor:
            address = topology.hosts[berth.host].migration_endpoint
            move = Move(source, successor, address, self.machine, hand_off, comparison, at or {})
            bme_per_s = topology.limits.bme_per_s if observe else 0
            watch = Watch(bme_per_s, topology.capabilities, self.own_vf, log)
            return Experiment(by, move, self.ends(), watch, self._lab.progress).run(flows, raw)

    @contextmanager
    def _prepared(self, hand_off: HandOff | None) -> Iterator[None]:
        """Prepare *hand_off*, and withdraw it if the guest is where it was afterwards."""
        source = self.instance
        if hand_off:
            hand_off.prepare()
        try:
            yield
        finally:
            if hand_off and self.instance is source:
                hand_off.withdraw()

    @contextmanager
    def _successor_on(self, berth: Berth, *, paused: bool) -> Iterator[Instance]:
        """Start a process on *berth* that waits for the guest; end the one that lost the guest."""
        ending, successor = self._launcher.launch(berth, incoming=True, paused=paused)
        loser = ending
        try:
            yield successor
        finally:
            if _runs(successor):  # also when measuring broke off after that
                loser, self._ending, self.instance = self._ending, ending, successor
            loser.close()

    def stay(
        self,
        flow: Flow,
        seconds: float = 1.0,
        *,
        peer_end: Endpoint | None = None,
        guest_end: Endpoint | None = None,
    ) -> FlowRecords:
        """Run *flow* for so long while the guest stays where it is; what is left of it.

        It runs between the two ends of `ends`, or has *peer_end* or *guest_end* instead.  A guest
        that does not answer any more is replaced by another one first.
        """
        self._find()
        ends = self.ends()
        with start(flow, peer_end or ends.peer_end, guest_end or ends.guest_end) as running:
            let_pass(seconds)
            return running.stop()

    def audit(self, way: Way, flow: Flow, raw: Raw) -> AuditRecords:
        """Stop its VF that way under *flow*, look, and give it back; see ``harness.audit``.

        A guest whose VF does not come back, or that an error leaves as it is, is to be replaced.
        One that does not answer any more, or has lost its VF before, is replaced first.
        """
        self._lab.renew()
        self.find_with_vf()
        return audit(
            way, self.instance, self.ends(), flow, raw=raw,
            log=self._lab.software_of(self.instance.vf),
            bme_per_s=self._lab.topology.limits.bme_per_s, progress=self._lab.progress,
        )  # fmt: skip

    def replace(self, why: str) -> None:
        """End the guest and boot another one where it was; *why* is told."""
        self._lab.progress(f"{why}; ending its guest")
        self._boot_another()

    @property
    def boot_tries(self) -> int:
        """How often the lab has a guest booted that does not come up."""
        return self._lab.topology.guest.boot_tries

    @property
    def spare(self) -> Vf:
        """The second VF that the guest's host lends.  Raises UsageError if it lends one VF."""
        vf = self._berths[self.instance.host.name].spare
        if vf is None:
            raise UsageError(
                f"{self.instance.host.name}: no second VF is lent to the guest",
                because="its berths have fewer",
                fix="use the fixture two_vf_guest",
            )
        return vf

    @property
    def port_side(self) -> PortSide:
        """The settings that the port has for the guest's VF.  Raises UsageError if it has no VF."""
        if self.instance.vf is None:
            raise UsageError(
                f"lab {self._lab.topology.name!r}: the guest has no VF",
                because="it was booted without one",
                fix='use a guest that has one, in a test marked `needs("vf")`',
            )
        return self.instance.vf.port_side

    @property
    def function_of_port(self) -> VirtualFunction:
        """The VF that a port lends the guest now.  Raises UsageError if its VF is no port's."""
        return VirtualFunction.of(self.instance.vf)

    @property
    def twin(self) -> Twin:
        """The twin that the guest has now.  Raises UsageError if its VF is no twin."""
        return Twin.of(self.instance.vf)

    @property
    def other_vf(self) -> Vf | None:
        """The VF that waits for the guest on the other host."""
        return self._other_berth.vf

    @property
    def _other_berth(self) -> Berth:
        here = self.instance.host.name
        return next(each for each in self._berths.values() if each.host != here)

    @property
    def other_twin(self) -> Twin:
        """The twin that waits for the guest on the other host."""
        return Twin.of(self.other_vf)

    def _find(self) -> None:
        """Reach the guest where it runs; if it does not answer, end it and boot another there."""
        lost = self._silent_why()
        if lost:
            self._lab.progress(f"{lost}; the guest is lost, ending it")
            self._boot_another()

    def find_with_vf(self) -> None:
        """Reach a guest that has its VF; without a VF another thing would be measured."""
        self._find()
        try:
            wait_for_lent_vf(self.machine)
        except (GuestError, RemoteError) as bare:
            self.replace(f"{bare.what}; {bare.because}")

    def _silent_why(self) -> str:
        """Say why the guest does not answer where it runs; empty if the guest answers."""
        if not _runs(self.instance):
            return f"{self.instance.host.name}: the guest does not run there any more"
        try:
            if self.machine.lost or self.machine.instance is not self.instance:
                self.machine.follow(self.instance)
            self.machine.host.run("true", seconds=ANSWER_SECONDS)
        except RemoteError as silent:
            return silent.what
        return ""

    def _boot_another(self) -> None:
        self.machine.close()
        self._ending.close()
        for each in self._berths.values():
            if each.vf:  # wherever the hand-off left the filter
                each.vf.set_filter(NO_MAC)
        here = self._berths[self.instance.host.name]
        self._ending, self.instance, self.machine, self.own_vf = self._launcher.boot(here)

    def ends(self) -> Ends:
        """The two ends of every flow, as the guest is now."""
        peer, entry = self._lab.peer, self._lab.topology.peer
        assert entry is not None, "a lab in use has a peer"
        peer_mac = peer.read_text(f"/sys/class/net/{entry.interface}/address").strip()
        interface = self.machine.interface_with(str(self.spec.address.ip))
        return Ends(
            peer=peer,
            peer_end=Endpoint(peer, entry.interface, peer_mac, str(entry.address.ip)),
            guest=self.machine,
            guest_end=Endpoint(self.machine, interface, self.spec.mac, str(self.spec.address.ip)),
        )


def _runs(instance: Instance) -> bool:
    try:
        return instance.state == "running"
    except RemoteError:  # its QEMU has ended
        return False


@contextmanager
def moving_guest(
    lab: Lab,
    spec: GuestSpec,
    logs: Path,
    *,
    vfs: int,
    ports: Mapping[str, str] | None = None,
) -> Iterator[MovingGuest]:
    """A booted guest with a berth on each of the lab's two hosts; all is put back afterwards.

    Each berth has so many VFs, of the host's port in *ports*; without that, of the first pair.
    """
    if ports is None:
        ports = lab.topology.port_pairs[0]
    with ExitStack() as stack:
        names = lab.pair()
        lab.progress(f"preparing {' and '.join(names)}")
        berths = stack.enter_context(
            together(berth_on(lab, name, spec, vfs=vfs, port=ports.get(name)) for name in names)
        )
        yield MovingGuest(lab, spec, dict(zip(names, berths, strict=True)), stack, logs)
