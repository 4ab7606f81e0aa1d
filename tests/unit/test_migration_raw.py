"""What is left of a migration that broke off: every text that can still be had."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from qmp_server import Monitor

from harness.analysis.measured import MEMORY_COMPARED
from harness.errors import RemoteError
from harness.guest.qmp import Qmp
from harness.migration.outcome import Note
from harness.migration.raw import Raw
from harness.migration.watch import Seen

if TYPE_CHECKING:
    from harness.guest.instance import Instance


def gone() -> str:
    raise RemoteError("alder: the host is gone", because="no answer", fix="look at it")


def said(host: str, **texts: object) -> Instance:
    """An instance on *host* that has said little."""
    answers: dict[str, object] = {
        "console": lambda: f"{host}'s console\n",
        "complaints": lambda: "",
        **texts,
    }
    answers.setdefault("qmp", SimpleNamespace(log_text=lambda: f"{host}'s qmp\n"))
    return cast("Instance", SimpleNamespace(host=SimpleNamespace(name=host), **answers))


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_every_text_is_a_file_and_silence_is_none(tmp_path: Path) -> None:
    """A kernel that was watched and said nothing is a finding; one that was not is none."""
    raw = Raw(seen=[Seen("alder", kernel={"lines": 0}), Seen("guest")])
    raw.take(said("alder"), said("birch", complaints=lambda: "terminating on signal 11\n"))
    raw.write(tmp_path, suffix="-2")
    assert texts(tmp_path) == {
        "qmp-alder-2.jsonl": "alder's qmp\n",
        "qmp-birch-2.jsonl": "birch's qmp\n",
        "qemu-birch-2.log": "terminating on signal 11\n",
        "dmesg-alder-2.log": "",
        "console-2.log": "alder's console\nbirch's console\n",
    }


def test_what_was_compared_of_a_guest_that_is_lost_is_a_file(tmp_path: Path) -> None:
    """Its pages may tell why the guest is lost, and nothing else keeps them then."""
    note = Note(1, MEMORY_COMPARED, "1 of 4 pages differ", {"differ": 1, "page_frames": [3]})
    Raw(notes=(note,)).write(tmp_path)
    (line,) = texts(tmp_path)["memory.jsonl"].splitlines()
    assert json.loads(line) == {
        "name": MEMORY_COMPARED, "differ": 1, "page_frames": [3], "text": "1 of 4 pages differ"
    }  # fmt: skip


def test_a_qemu_that_was_never_spoken_to_said_nothing(tmp_path: Path) -> None:
    """What breaks off before anything is asked must not end in an error about a missing log."""
    log = tmp_path / "qmp.jsonl"
    with closing(Monitor("birch")) as qemu, closing(Qmp("birch", qemu.near, log)) as qmp:
        raw = Raw()
        raw.take(said("birch", qmp=qmp))
    assert raw.qmp_logs == {"birch": ""}


def test_a_host_that_is_gone_takes_only_its_own_texts_with_it(tmp_path: Path) -> None:
    """It is the likeliest reason to look at all, and what broke off must not become its error."""
    raw = Raw()
    raw.take(said("alder", console=gone, complaints=gone), said("birch"))
    raw.write(tmp_path)
    not_to_be_had = "not to be had: alder: the host is gone; no answer\n"
    assert texts(tmp_path) == {
        "qmp-alder.jsonl": "alder's qmp\n",
        "qmp-birch.jsonl": "birch's qmp\n",
        "qemu-alder.log": not_to_be_had,
        "console.log": f"{not_to_be_had}birch's console\n",
    }
