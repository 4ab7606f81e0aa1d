"""The processes of an embedded lab are found on this machine by names in their command lines.

A lab is ended by whoever comes later, so no record of its processes is kept.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path

from harness.waiting import wait_for

END_SECONDS = 60
"""The kernel may take so long to end a killed process, whose GiB of memory it frees first."""


def process_name(lab: str, host: str) -> str:
    """The ``-name`` of a machine's QEMU."""
    return f"vf-harness-lab-{lab}-{host}"


def chip_name(lab: str, host: str) -> str:
    """The ``--name`` of the chip of a machine."""
    return f"{process_name(lab, host)}-chip"


_children: dict[int, subprocess.Popen[bytes]] = {}
"""This very process started these processes, and has to reap them; by their ids."""


def ours(process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Note that this very process started *process*; `end_machines` reaps it then."""
    _children[process.pid] = process
    return process


def machines_of(lab: str, hosts: tuple[str, ...]) -> dict[str, int]:
    """Process ids of the machines of *lab* on this machine, by host, whoever started them."""
    return _processes("-name", {process_name(lab, host): host for host in hosts})


def chips_of(lab: str, hosts: tuple[str, ...]) -> dict[str, int]:
    """Process ids of the chips of *lab*'s machines, by host, whoever started them."""
    return _processes("--name", {chip_name(lab, host): host for host in hosts})


def _processes(option: str, names: dict[str, str]) -> dict[str, int]:
    """Process ids by host, for processes whose *option* is one of *names*: name -> host."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if option in argv[:-1]:  # whatever the program: what enters the tree becomes QEMU
            name = argv[argv.index(option) + 1]
            if name in names:
                found[names[name]] = int(entry.name)
    return found


def end_machines(lab: str, hosts: tuple[str, ...]) -> None:
    """Kill every machine of *lab* on this machine and its chip; return when they are gone."""
    for name, process in (*machines_of(lab, hosts).items(), *chips_of(lab, hosts).items()):
        try:
            descriptor = os.pidfd_open(process)
        except ProcessLookupError:
            continue  # it ended while we looked
        try:
            with suppress(ProcessLookupError):  # it ended meanwhile, and was reaped
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            ended = select.poll()
            ended.register(descriptor, select.POLLIN)
            wait_for(f"{name} to end", partial(ended.poll, 100), within=END_SECONDS)
        finally:
            os.close(descriptor)
        if child := _children.pop(process, None):
            child.wait()
