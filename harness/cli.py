"""``vf-harness``: the lab by hand, and the way back."""

from __future__ import annotations

import argparse
import errno
import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError, LabError, RestoreError, disk_full
from harness.lab import chip_command
from harness.topology import PEER, Topology, find, load, schema

if TYPE_CHECKING:
    from harness.remote import Host

Progress = Callable[[str], None]

HELP = """\
Measure what a live migration does to a guest that owns an 82599 virtual function.

  vf-harness lab up          start the emulated lab and leave it up
  pytest tests/lab -m smoke  run tests on it
  vf-harness lab down        end it

Have a software 82599 in a QEMU of your own: `vf-harness chip --help`.

Exit codes: 0 done, 1 an error on a machine, 2 wrong use, 10 the lab is lent to someone else,
11 the lab cannot be used as it is, 12 a host could not be put back, 13 the lab's QEMU takes no
software 82599; 128 and a signal's number where a signal ended the command.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    _have_streams()
    status = 0
    try:
        try:
            status = _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads_us():
            raise
        # who read our output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _nobody_reads_us() -> bool:
    """Say whether the pipe that we write results to has no reader any more."""
    looking = select.poll()
    looking.register(sys.stdout, 0)
    return bool(looking.poll(0))


def _have_streams() -> None:
    """Open /dev/null, for us and our children, for each standard stream that was closed before us.

    A socket that is opened later would get the number of such a stream, and be taken for it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # so *number* is the lowest that is free, which `open` takes
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _tell(text: str) -> None:
    """Write a line to stderr; that nobody reads it any more changes no exit code."""
    with suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)


def _run(arguments: list[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options) or 0)
    except PermissionError as refused:
        error: HarnessError = LabError(
            f"this machine: {refused.filename or 'a process'}: {refused.strerror}",
            because="it belongs to another user, as what was made with sudo does",
            fix="run the same command with sudo",
        )
    except OSError as refused:
        if refused.errno == errno.ENOSPC:
            error = disk_full(refused)
        elif refused.filename or refused.errno in (errno.ENOENT, errno.EROFS):
            error = _refused(refused)
        else:
            raise
    except HarnessError as told:
        error = told
    except KeyboardInterrupt:
        _tell("vf-harness: interrupted; what was begun was undone")
        return 130
    _tell(f"vf-harness: {error}")
    return error.exit_code


def _refused(error: OSError) -> LabError:
    return LabError(
        f"this machine: {f'{error.filename}: ' if error.filename else ''}{error.strerror}",
        because="the operating system refused what the command needs there",
        fix="see whether that file, folder or program is there, is of the right kind, and can be "
        "written",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vf-harness", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    lab = commands.add_parser("lab", help="start, end and show the emulated lab")
    actions = lab.add_subparsers(required=True, metavar="up|down|status")
    for name, run, help_text in (
        ("up", _lab_up, "start it and leave it up; an image is built first if there is none"),
        ("down", _lab_down, "end it, or what a start left behind"),
        ("status", _lab_status, "show what is there; exit code 1 if it is not up"),
    ):
        _lab_option(actions.add_parser(name, help=help_text)).set_defaults(command=run)
    doctor = commands.add_parser(
        "doctor", help="look at hosts and peer for what would spoil a test"
    )
    _lab_option(doctor).set_defaults(command=_doctor)
    restore = commands.add_parser(
        "restore", help="put hosts back as they were, from their journals"
    )
    _lab_option(restore).set_defaults(command=_restore)
    restore.add_argument(
        "hosts", nargs="*", metavar="HOST", help="default: every host, and the peer"
    )
    report = commands.add_parser("report", help="write a run's report.html again from its results")
    report.add_argument("run", type=Path, metavar="RUN", help="its folder, such as reports/latest")
    report.set_defaults(command=_report)
    chip = commands.add_parser("chip", help=chip_command.HELP)
    chip_command.add_options(chip)
    chip.set_defaults(command=_chip)
    schemas = commands.add_parser("schema", help="print the JSON Schema of topology files")
    schemas.add_argument("--results", action="store_true", help="... of results.json instead")
    schemas.set_defaults(command=_schema)
    return parser


def _lab_option(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--lab",
        metavar="FILE|NAME",
        default=os.environ.get("VF_HARNESS_LAB") or "emulated",
        help="topology: a file, or the name of one in topologies/ (default: emulated; "
        "VF_HARNESS_LAB)",
    )
    return parser


def _topology(options: argparse.Namespace) -> Topology:
    return load(find(options.lab))


def _lab_up(options: argparse.Namespace) -> None:
    from harness.lab import emulated

    topology = _topology(options)
    if emulated.status(topology).is_up:
        print(f"lab {topology.name!r} is up already")
    else:
        emulated.up(topology, _progress(), dies_with_us=False)
    reached = emulated.reached_topology(topology)
    for name in reached.hosts:
        print(f"{name}: {reached.connection(name).by_hand}")


def _lab_down(options: argparse.Namespace) -> None:
    from harness.lab import emulated

    was = emulated.down(_topology(options))
    ended = [*was.machines, *was.namespaces]
    print(f"ended: {', '.join(ended)}" if ended else "nothing was there")


def _lab_status(options: argparse.Namespace) -> int:
    from harness.lab import emulated

    status = emulated.status(_topology(options))
    print("up" if status.is_up else "not up")
    print(f"machines:   {', '.join(status.machines) or 'none'}")
    print(f"namespaces: {', '.join(status.namespaces) or 'none'}")
    print(f"folder:     {status.folder or 'none'}")
    return 0 if status.is_up else 1


def _doctor(options: argparse.Namespace) -> None:
    from harness.host.preflight import check, preflight, preflight_peer
    from harness.lab.use import reached

    topology = reached(_topology(options))
    faults = []
    for name, entry in topology.hosts.items():
        faults.append((name, _looked_at(topology, name, partial(preflight, entry=entry))))
    if topology.peer:
        look = partial(preflight_peer, entry=topology.peer, mtu=topology.guest.mtu)
        faults.append((PEER, _looked_at(topology, PEER, look)))
    check(faults)
    print(f"{', '.join(name for name, _ in faults)}: nothing found")


def _looked_at(topology: Topology, name: str, look: Callable[[Host], list[str]]) -> list[str]:
    """The faults of one machine; that it cannot be reached is one."""
    try:
        with _connected(topology, name) as host:
            return look(host)
    except HarnessError as error:
        return [f"{error.what.removeprefix(f'{name}: ')} ({error.because}): {error.fix}"]


def _restore(options: argparse.Namespace) -> None:
    from harness.lab.use import reached

    topology = reached(_topology(options))
    names = options.hosts or [*topology.hosts, *([PEER] if topology.peer else [])]
    for name in names:
        topology.connection(name)  # one that the lab does not have is told before any is touched
    failed = []
    for name in names:
        try:
            print(f"{name}: {_put_back(topology, name)}")
        except HarnessError as error:  # one host that fails must not keep another from its turn
            failed.append(str(error))
    if failed:
        raise RestoreError(
            "\n".join(failed), because="see each host above", fix="mend the cause, then try again"
        )


def _put_back(topology: Topology, name: str) -> str:
    """Put one host back, whoever has its lease; what was done, in words."""
    with _connected(topology, name) as host:
        evicted = host.lease.evict() != "gone"
        host.lease.take("vf-harness restore", seconds=300)
        pending = host.pending()
        host.undo()
        host.lease.give_back()
    words = f"{len(pending)} changes undone"
    return f"a run was ended, which put the host back; {words}" if evicted else words


def _report(options: argparse.Namespace) -> None:
    from harness.report.page import write_page

    print(write_page(options.run))


def _chip(options: argparse.Namespace) -> int:
    return chip_command.run(options, lambda text: _tell(f"vf-harness: {text}"))


def _schema(options: argparse.Namespace) -> None:
    from harness.report.results import results_schema

    wanted = results_schema() if options.results else schema()
    print(json.dumps(wanted, indent=2))


@contextmanager
def _connected(topology: Topology, name: str) -> Iterator[Host]:
    from harness.remote import connect

    with connect(name, topology.connection(name)) as host:
        yield host


def _progress() -> Progress:
    """Lines with the seconds since the start, on stderr: a pipe gets the results alone."""
    began = time.monotonic()

    def say(text: str) -> None:
        _tell(f"{time.monotonic() - began:6.1f} s  {text}")

    return say


if __name__ == "__main__":
    sys.exit(main())
