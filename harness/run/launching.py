"""A guest's process is started on a berth, to boot there or to wait for a migration."""

from __future__ import annotations

import itertools
import os
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from harness.errors import GuestError, RemoteError, WaitError
from harness.guest.command_line import shares_memory
from harness.guest.instance import Instance, instance, put_image
from harness.guest.lent_vf import wait_for_lent_vf
from harness.guest.machine import GuestMachine
from harness.guest.own_vf import OwnVf, make_own_vf
from harness.guest.spec import GuestSpec, Place
from harness.host.twin import Twin
from harness.run.berth import Berth
from harness.run.lab import Lab

_launches = itertools.count(1)
"""Each launch of this process has a number, so that no two guests share a log of QMP."""


class Booted(NamedTuple):
    """A guest that answers; *ending* ends its process, *own_vf* is of a port that QEMU emulates."""

    ending: ExitStack
    instance: Instance
    machine: GuestMachine
    own_vf: OwnVf | None


class Launcher:
    """A launcher starts the processes of a guest as *spec* says; *stack* ends them all.

    What a guest says over QMP is kept in *logs*.
    """

    def __init__(self, lab: Lab, spec: GuestSpec, stack: ExitStack, logs: Path) -> None:
        self._lab = lab
        self._spec = spec
        self._stack = stack
        self._logs = logs

    def boot(self, berth: Berth) -> Booted:
        """Boot a guest until it answers and has its VF, as often as its lab allows.

        Nothing is measured yet, so another try hides nothing.
        """
        if berth.vf:
            berth.vf.set_filter(self._spec.mac)
        left = self._lab.topology.guest.boot_tries
        while True:
            self._lab.renew()
            self._lab.progress(f"booting the guest on {berth.host}")
            ending, booting = self.launch(berth, incoming=False)
            try:
                return self._up(ending, booting)
            except (GuestError, RemoteError, WaitError) as silent:
                ending.close()
                left -= 1
                if not left:
                    raise
                self._lab.progress(f"{silent.what}; ended it")

    def _up(self, ending: ExitStack, booting: Instance) -> Booted:
        """Wait until *booting* is up, answers and has its VF; of a failure no connection is left.

        Raises GuestError, RemoteError or WaitError.
        """
        booting.wait_until_up()
        machine = GuestMachine(booting, self._lab.guest)
        with ExitStack() as failing:
            failing.callback(machine.close)
            wait_for_lent_vf(machine)
            own_vf = make_own_vf(machine) if self._spec.emulated_port else None
            failing.pop_all()
        return Booted(ending, booting, machine, own_vf)

    def launch(
        self, berth: Berth, *, incoming: bool, paused: bool = False
    ) -> tuple[ExitStack, Instance]:
        """Start a process on *berth*; the stack that comes with it ends the process early."""
        host = self._lab.hosts[berth.host]
        entry = self._lab.topology.hosts[berth.host]
        if isinstance(berth.vf, Twin):
            berth.vf.check_free()
        kernel, initramfs = put_image(host, self._lab.guest)
        launch = next(_launches)
        folder = host.scratch(f"{self._spec.name}-{os.getpid()}-{launch}/qmp")
        folder = folder.rpartition("/")[0]
        place = Place(
            qemu=entry.qemu, accelerator=entry.accelerator, kernel=kernel, initramfs=initramfs,
            folder=folder, tap=berth.tap, vf=berth.vf.device if berth.vf else None,
            incoming=incoming, paused=paused, shared_memory=shares_memory(self._spec, berth.vf),
        )  # fmt: skip
        ending = self._stack.enter_context(ExitStack())
        log = self._logs / f"qmp-{berth.host}-{launch}.jsonl"
        return ending, ending.enter_context(instance(self._spec, berth.vf, place, host, log))
