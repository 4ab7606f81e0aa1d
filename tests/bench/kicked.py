"""How long a nested guest lives while its host's QEMU stops and goes on, by what KVM is told.

Each stop kicks the host's processors.  TCG leaves the vector of an interrupt that KVM injects in
``exception_index``, and a kick before the guest's next exit has that interrupt delivered a second
time (QEMU, target/i386/tcg/system/svm_helper.c, helper_vmrun; accel/tcg/cpu-exec.c,
cpu_handle_interrupt).  A guest that holds a lock of its handler then waits for itself.  Migrations
kick seldom, so guests are seldom lost; this does the same often.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.rows import Row
from harness.errors import GuestError, RemoteError
from harness.guest.qmp import Qmp
from harness.guest.spec import GuestSpec
from harness.lab.chip_vf import chip_vf
from harness.lab.emulated import run_folder
from harness.lab.use import ready
from harness.run.lab import Lab, taken
from harness.run.moving import MovingGuest, moving_guest
from harness.topology import Topology, find, load
from harness.traffic.flow import Flow
from harness.traffic.running import start
from harness.waiting import let_pass

TRIES, MOST = 4, 2000
GAP_S, LOOK_EVERY, ANSWER_S = 0.02, 20, 25
FLOW = Flow("kicked", "round-trip", 64, 1000, 4711)
"""Each of its frames interrupts the guest."""

_UNLOAD = "modprobe -r kvm-amd kvm"


@dataclass(frozen=True, slots=True)
class Trial:
    """*told* is what a host runs before it gets a guest, *cpu* the guest's own processor."""

    name: str
    told: str = "true"
    cpu: str = "host"
    host_cpus: int = 0


TRIALS = (
    Trial("as KVM and QEMU are by default"),
    Trial("kvm tdp_mmu=0", f"{_UNLOAD} && modprobe kvm tdp_mmu=0 && modprobe kvm-amd"),
    Trial("kvm-amd npt=0", f"{_UNLOAD} && modprobe kvm-amd npt=0"),
    Trial("no huge pages", "echo never > /sys/kernel/mm/transparent_hugepage/enabled"),
    Trial("the host has one processor", host_cpus=1),
    Trial("the guest without PV EOI, as the lab has it", cpu="host,-kvm-pv-eoi"),
)


def kicked(kept: Path, say: Callable[[str], None]) -> list[Row]:
    """Measure each trial on the default lab, which must not be up, and return a row for each."""
    return [_row(load(find("emulated")), trial, kept, say) for trial in TRIALS]


def _row(topology: Topology, trial: Trial, kept: Path, say: Callable[[str], None]) -> Row:
    topology = _told(topology, trial)
    what = f"stops of its host's QEMU that a nested guest outlives, {trial.name}"
    how = (
        f"{TRIES} guests, one after the other, {MOST} stops at the most, {GAP_S:g} s between two, "
        f"under {FLOW.rate_pps:g} frames a second"
    )
    with (
        ready(topology, say) as (reached, image),
        taken(reached, image, say, partial(chip_vf, topology)) as lab,
    ):
        for host in lab.hosts.values():
            host.run("sh", "-c", trial.told)
        try:
            outlived = [_outlived(lab, kept, say) for _ in range(TRIES)]
        except GuestError as silent:
            return Row(what, "no guest comes up", "all", silent.what)
    shown = ", ".join(f"{each} and more" if each >= MOST else str(each) for each in outlived)
    return Row(what, shown, "all", how)


def _told(topology: Topology, trial: Trial) -> Topology:
    guest = topology.guest.model_copy(update={"cpu": trial.cpu})
    assert topology.emulation is not None
    cpus = trial.host_cpus or topology.emulation.host_cpus
    emulation = topology.emulation.model_copy(update={"host_cpus": cpus})
    return topology.model_copy(update={"guest": guest, "emulation": emulation})


def _outlived(lab: Lab, kept: Path, say: Callable[[str], None]) -> int:
    """Stop the host's QEMU until its guest does not answer; return how often that went well."""
    with moving_guest(lab, GuestSpec.of(lab.topology.guest), kept, vfs=1) as guest:
        host, ends = guest.instance.host.name, guest.ends()
        path = str(run_folder(lab.topology) / f"{host}.qmp")
        stops = 0
        with (
            closing(Qmp(f"{host} (lab)", path)) as qemu,
            start(FLOW, ends.peer_end, ends.guest_end),
        ):
            while stops < MOST:
                for _ in range(LOOK_EVERY):
                    qemu.execute("stop")
                    qemu.execute("cont")
                    let_pass(GAP_S)
                if not _answers(guest):
                    break
                stops += LOOK_EVERY
        say(f"{stops} stops: {guest.instance.last_words}")
        return stops


def _answers(guest: MovingGuest) -> bool:
    try:
        guest.machine.host.run("true", seconds=ANSWER_S)
    except RemoteError:
        return False
    return True
