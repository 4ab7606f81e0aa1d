"""Transcripts of mailbox sequences are written, read and compared word by word."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.agent.errors import AgentError
from harness.agent.port_registers import PortRegisters
from harness.mailbox.model import ModelPlayer
from harness.mailbox.sequences import sequences
from harness.mailbox.state import of_registers
from harness.mailbox.transcript import RSS_KEY, Entry, Transcript, Writer, differences, words
from harness.twin import requests
from harness.twin.driver import IXGBE_6_12, IXGBE_6_18, of_kernel
from harness.twin.port import Port
from harness.uapi.ixgbe_pf import Register, Row, Vmolr
from harness.uapi.ixgbe_vf import Message

KEY = list(range(0x50, 0x5A))


@pytest.mark.parametrize(
    ("reply", "written"),
    [
        (None, "none"),
        ([0xA0000005, *[0] * 15], "a0000005"),
        ([0xA0000009, 4, 4, 0, 1, *[0] * 11], "a0000009 4 4 0 1"),
        ([0xA000000B, *KEY, *[0] * 5], f"a000000b {RSS_KEY}"),
        ([0xA000000B, *KEY[:9], *[0] * 6], "a000000b 50 51 52 53 54 55 56 57 58"),
    ],
)
def test_a_reply_is_written_without_the_zeros_behind_it(
    reply: list[int] | None, written: str
) -> None:
    """A key changes with each start, and would make every two transcripts differ."""
    assert words(reply, KEY) == written


def entries(*states: int) -> list[Entry]:
    writer = Writer()
    for number, receives in enumerate(states):
        writer.add(f"step {number}", {"receives": receives, "vlans": [0]}, reply="1", told=None)
    return writer.entries


def test_an_entry_has_what_changed_and_a_difference_its_step() -> None:
    assert entries(1, 1, 0)[1:] == [
        {"step": "step 1", "reply": "1"},
        {"step": "step 2", "reply": "1", "changed": {"receives": 0}},
    ]
    assert list(differences(entries(1, 1, 0), entries(1, 1, 0))) == []
    assert list(differences(entries(1, 1, 0), entries(1, 0, 0))) == [
        "1. step 1: receives is 1 at the driver's port, 0 at the model's"
    ]
    assert list(differences(entries(1, 1), entries(1))) == [
        "1. step 1: step is 'step 1' of the driver, None of the model",
        "1. step 1: reply is '1' of the driver, None of the model",
    ]


def test_a_transcript_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = Transcript("a driver", 63, {"one": entries(1, 0), "none": []})
    written.write(tmp_path / "transcript.json")
    assert Transcript.read(tmp_path / "transcript.json") == written


def test_a_state_is_read_from_the_registers_of_the_vfs_own_pool() -> None:
    """A VF owns the valid entries of its pool, and no others."""
    values: dict[int, int] = {}
    for index, (high, pools) in enumerate([(1 << 31 | 0x0201, 2), (0x0302, 2), (1 << 31, 1)]):
        values |= {Row.RAH.at(index): high, Row.MPSAR_HI.at(index): pools, Row.RAL.at(index): 2}
    for index, (vlan, members) in enumerate([(1 << 31, 3), (1 << 31 | 5, 2), (9, 2)]):
        values |= {Row.VLVF.at(index): vlan, Row.VLVFB.at(2 * index + 1): members}
    values |= {Row.VMOLR.at(33): Vmolr.BAM | Vmolr.MPE, Row.VFRE.at(1): 2, Row.VFTE.at(1): 1}
    values |= {Row.MTA.at(9): 1 << 3, Register.MAXFRS: 1518 << 16, Row.VMVIR.at(33): 0x40000007}
    values |= {Row.PFVFSPOOF.at(4): 1 << 9}
    assert of_registers(values, 33) == {
        "addresses": ["02:00:00:00:01:02"], "vlans": [0, 5], "accepts": ["BAM", "MPE"],
        "multicast": ["0x123"], "receives": True, "transmits": False, "largest_frame": 1518,
        "inserted_vlan": "0x7", "spoof_check": ["vlan"],
    }  # fmt: skip


def test_sequences_have_names_of_their_own_and_none_can_end_the_host() -> None:
    """A trusted VF that asks to delete an IPsec association it never had takes the host down.

    Ref: ixgbe_ipsec_vf_del_sa reads a table that a port without IPsec does not have.
    """
    names = [sequence.name for sequence in sequences()]
    assert len(names) == len({*names})
    for sequence in sequences():
        steps = list(map(str, sequence.steps))
        first = next((at for at, step in enumerate(steps) if "trust on" in step), len(steps))
        assert not any(Message.IPSEC_DEL.name in step for step in steps[first:]), sequence.name


@pytest.mark.parametrize(
    ("release", "driver"),
    [
        ("6.12.117+deb13-amd64", IXGBE_6_12), ("6.1.0-49-amd64", IXGBE_6_12),
        ("6.18.2+deb13-amd64", IXGBE_6_18), ("7.0-rc1", IXGBE_6_18),
    ],
)  # fmt: skip
def test_a_driver_is_known_by_its_kernel(release: str, driver: object) -> None:
    assert of_kernel(release) == driver


def test_a_model_that_grants_what_the_driver_refuses_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model that lets a VF replace the administrator's address differs in its reply."""
    (given,) = (each for each in sequences() if each.name == "given address")
    right = ModelPlayer(IXGBE_6_12).play(given)

    def grant(port: Port, words: list[int]) -> bool:
        port.administered.mac_given = False
        return requests.grant(port, words)

    monkeypatch.setattr("harness.twin.port.grant", grant)
    seen = list(differences(right, ModelPlayer(IXGBE_6_12).play(given)))
    assert any("reply is '60000002" in line and "'a0000002" in line for line in seen)


def test_a_port_whose_registers_cannot_be_read_is_an_error() -> None:
    with pytest.raises(AgentError, match=r"0000:99:00\.0: the registers of the port cannot be"):
        PortRegisters("0000:99:00.0")
