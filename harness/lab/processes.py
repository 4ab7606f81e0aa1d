"""The processes of an embedded lab are found on this machine by names in their command lines.

A process may end a lab that another process started, so nobody keeps a record of the processes.
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
"""The kernel may take this long to end a killed QEMU, whose GiB of memory are freed first."""


def process_name(lab: str, host: str) -> str:
    """Return the value of ``-name`` in the command line of a host's QEMU."""
    return f"vf-harness-lab-{lab}-{host}"


def chip_name(lab: str, host: str) -> str:
    """Return the value of ``--name`` in the command line of a host's chip."""
    return f"{process_name(lab, host)}-chip"


_children: dict[int, subprocess.Popen[bytes]] = {}
"""This process started these processes, by process id, and has to reap them."""


def ours(process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Return *process*, and have `end_machines` reap *process*, which this process started."""
    _children[process.pid] = process
    return process


def machines_of(lab: str, hosts: tuple[str, ...]) -> dict[str, int]:
    """Return the process id of each running QEMU of *lab*, by host, whoever started the QEMU."""
    return _processes("-name", {process_name(lab, host): host for host in hosts})


def chips_of(lab: str, hosts: tuple[str, ...]) -> dict[str, int]:
    """Return the process id of each running chip of *lab*, by host, whoever started the chip."""
    return _processes("--name", {chip_name(lab, host): host for host in hosts})


def _processes(option: str, names: dict[str, str]) -> dict[str, int]:
    """Return the process ids, by host, of processes that have one of *names* after *option*.

    *names* gives the host of each name.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue  # the process ended while we looked
        if option in argv[:-1]:  # in any program: the one that enters the tree becomes QEMU
            name = argv[argv.index(option) + 1]
            if name in names:
                found[names[name]] = int(entry.name)
    return found


def end_machines(lab: str, hosts: tuple[str, ...]) -> None:
    """Kill the QEMU and the chip of every host of *lab*, and return when they are gone.

    Raises WaitError if a process does not end within END_SECONDS.
    """
    for name, process in (*machines_of(lab, hosts).items(), *chips_of(lab, hosts).items()):
        try:
            descriptor = os.pidfd_open(process)
        except ProcessLookupError:
            continue  # the process ended while we looked
        try:
            with suppress(ProcessLookupError):  # the process ended, and was reaped
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            ended = select.poll()
            ended.register(descriptor, select.POLLIN)
            wait_for(f"{name} to end", partial(ended.poll, 100), within=END_SECONDS)
        finally:
            os.close(descriptor)
        if child := _children.pop(process, None):
            child.wait()
