"""What a twin can be asked and told: each word does what it says, and nonsense ends nothing."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from errno import EINVAL, ENOMEM
from pathlib import Path
from typing import Any

import pytest
from vf_driver import Guest, guest_with_vf
from vf_rings import MAC, PEER, frame_of

from harness.errors import RemoteError
from harness.host import twin_control
from harness.twin import control
from harness.twin.control import Control, ControlConnection
from harness.uapi.ixgbe_vf import LINK_OF_MBIT, Api, Link, Message, Register
from harness.uapi.pci_regs import Command

Say = Callable[[bytes], dict[str, Any]]


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with guest_with_vf(tmp_path / "dma.log") as guest:
        guest.start()
        yield guest


@pytest.fixture
def say(guest: Guest) -> Iterator[Say]:
    """Send a line to the twin's control socket; its reply."""
    near, far = socket.socketpair()
    connection = ControlConnection(far, Control(guest.device, lambda: True))

    def say(line: bytes) -> dict[str, Any]:
        near.sendall(line + b"\n")
        assert connection.serve(), "whoever asks nonsense may ask again"
        return dict(json.loads(near.recv(1 << 16)))

    yield say
    near.close()
    assert not connection.serve()
    connection.close()


def test_an_answer_that_comes_too_late_is_not_that_to_the_next_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Marking can take long; its number of pages would be a port's MTU, or the DMA log's length."""
    monkeypatch.setattr(twin_control, "ANSWER_SECONDS", 0.05)
    near, far = socket.socketpair()
    with closing(far), closing(twin_control.TwinControl("alder: vf0", near)) as asking:
        with pytest.raises(RemoteError, match="alder: vf0: the twin did not answer to 'mark'"):
            asking.ask("mark")
        with suppress(BrokenPipeError):
            far.sendall(b'{"ok": 7}\n')
        with pytest.raises(RemoteError, match="the twin did not answer to 'now'"):
            asking.ask("now")


def tell(say: Say, word: str, **arguments: Any) -> Any:
    return say(json.dumps({"do": word, **arguments}).encode())["ok"]


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{", b"[]", b"[1]", b"null", b"[" * 30_000, b"\xff\xfe", b'{"do": 1}',
        b'{"do": "__init__"}', b'{"do": "_device"}', b'{"do": "no such word"}', b'{"word": "now"}',
        b'{"do": "now", "more": 1}', b'{"do": "set_mac"}', b'{"do": "set_mac", "mac": 7}',
        b'{"do": "set_mac", "mac": "02:00"}', b'{"do": "announce", "mac": "zz"}',
        b'{"do": "set_vlan", "vlan": "7"}',
        b'{"do": "set_link", "up": true, "mbit": 5}', b'{"do": "set_link", "up": true, "mbit": []}',
        b'{"do": "set_port_mtu", "mtu": "x"}',
        b'{"do": "set_api", "newest": 99}', b'{"do": "mark", "since": -1}',
        b'{"do": "mark", "since": "x"}', b'{"do": "misbehave", "sings": true}',
        b'{"do": "misbehave", "late_ms": "x"}', b'{"do": "misbehave", "late_ms": 1e999}',
        b'{"do": "misbehave", "loses": -1}', b'{"do": "misbehave", "loses": 3, "corupts": 1}',
        b'{"do": "set_spoof_check", "checked": 1}',
        b'{"do": "set_vlan", "vlan": 7.5}', b'{"do": "set_trust", "trusted": "no"}',
        b'{"do": "clear_filter_on_release"}', b'{"do": "clear_filter_on_release", "name": 1}',
    ],
)  # fmt: skip
def test_nonsense_is_refused_in_words_and_the_vf_goes_on(
    guest: Guest, say: Say, line: bytes
) -> None:
    """Whatever it was, nothing of it is kept: the driver and the wire notice nothing."""
    before = tell(say, "status")
    reply = say(line)
    assert list(reply) == ["error"]
    assert reply["error"]
    assert tell(say, "status") | {"cpu_s": 0} == before | {"cpu_s": 0}
    assert guest.device.interrupts.lost == 0
    guest.set_master(False)
    guest.set_master(True)
    assert guest.device.read(Register.VFLINKS) == Link.UP | Link.SPEED_10G
    guest.hear(frame_of(60))
    assert len(guest.rx[0].took()) == 1


@pytest.mark.parametrize(
    ("word", "arguments"),
    [
        ("set_vlan", {"vlan": 4096}), ("set_vlan", {"vlan": -1}),
        ("set_vlan", {"vlan": 7, "qos": 8}), ("set_port_mtu", {"mtu": 9711}),
        ("set_port_mtu", {"mtu": 67}), ("set_mac", {"mac": "01:00:5e:00:00:fb"}),
    ],
)  # fmt: skip
def test_what_the_kernel_refuses_has_its_errno_and_changes_nothing(
    say: Say, word: str, arguments: dict[str, Any]
) -> None:
    """Linux answers EINVAL to an MTU, a VLAN or an address that there is not."""
    before = tell(say, "status")
    refused = say(json.dumps({"do": word, **arguments}).encode())
    assert refused == {"error": "Invalid argument", "errno": EINVAL}
    assert tell(say, "status") | {"cpu_s": 0} == before | {"cpu_s": 0}


def test_a_line_without_an_end_is_given_up(guest: Guest) -> None:
    """Nobody asks for that much, and it would be kept for ever."""
    near, far = socket.socketpair()
    connection = ControlConnection(far, Control(guest.device, lambda: False))
    served = 0
    near.sendall(b"x" * 4096)
    while connection.serve() and served < 64:
        served += 1
        near.sendall(b"x" * 4096)
    assert served == 16
    near.close()
    connection.close()


@pytest.mark.parametrize("mbit", LINK_OF_MBIT)
def test_the_cables_state_is_the_vfs(guest: Guest, say: Say, mbit: int) -> None:
    """Up at one of three speeds; down it has none."""
    tell(say, "set_link", up=True, mbit=mbit)
    assert guest.device.read(Register.VFLINKS) == Link.UP | LINK_OF_MBIT[mbit]
    tell(say, "set_link", up=False)
    assert guest.device.read(Register.VFLINKS) == 0
    assert tell(say, "status")["port"] == {
        "up": True, "mtu": 1500, "largest_frame": 1514, "link_up": False, "link_mbit": 10_000,
    }  # fmt: skip


def test_what_is_told_is_seen_in_the_status(say: Say) -> None:
    """Filter, port and DMA; and a port that is reset listens to its VF no more."""
    tell(say, "set_mac", mac="02:00:00:00:00:07")
    tell(say, "set_vlan", vlan=7)
    tell(say, "set_spoof_check", checked=False)
    vf = tell(say, "status")["vf"]
    assert tell(say, "status")["administered"] == {
        "api": Api.V17,
        "mac": "02:00:00:00:00:07",
        "vlan": 7,
        "trusted": False,
        "spoof_check": False,
    }
    assert (vf["mac"], vf["vlans"], vf["queues"]) == ("02:00:00:00:00:07", [7], 1)
    assert (vf["clear_to_send"], vf["receives"]) == (True, True)
    tell(say, "reset_port")
    assert not tell(say, "status")["vf"]["clear_to_send"]
    tell(say, "set_port_mtu", mtu=9000)
    assert tell(say, "status")["port"]["mtu"] == 9000
    assert not tell(say, "status")["vf"]["receives"]


def test_a_vf_that_is_disabled_gets_nothing(guest: Guest, say: Say) -> None:
    """Neither for its own address nor as a broadcast; VFLINKS goes on to tell the port's link."""
    linked = guest.device.read(Register.VFLINKS)
    tell(say, "set_state", enabled=False)
    guest.hear(frame_of(60), frame_of(60, head=b"\xff" * 6 + PEER))
    assert guest.rx[0].took() == []
    assert guest.device.read(Register.VFLINKS) == linked


def test_the_newest_api_counts_from_the_next_reset(guest: Guest, say: Say) -> None:
    """A driver asks for the newest that it knows itself, and then for less."""
    assert tell(say, "status")["vf"]["api"] == Api.V17
    tell(say, "set_api", newest=Api.V11)
    assert tell(say, "status")["vf"]["api"] == Api.V17
    guest.ask(Message.RESET)
    guest.ask(Message.API_NEGOTIATE, Api.V17)
    assert tell(say, "status")["vf"]["api"] == Api.V10
    guest.ask(Message.API_NEGOTIATE, Api.V11)
    assert tell(say, "status")["vf"]["api"] == Api.V11


def test_the_filter_falls_with_bus_master_enable(
    guest: Guest, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and the host's bridge follows before anything else is done."""
    followed: list[bytes] = []

    def follow() -> str:
        followed.append(guest.device.port.filters.mac)
        return ""

    monkeypatch.setattr(guest.device, "follow_filter", follow)
    tell(say, "clear_filter_on_release", name="vf0")
    assert tell(say, "released") == []
    tell(say, "set_bus_master", on=False)
    (released,) = tell(say, "released")
    assert (released["name"], released["data"]) == ("vf0", {})
    assert followed == [bytes(6)]
    assert tell(say, "status")["vf"]["mac"] == "00:00:00:00:00:00"
    assert not tell(say, "now")["command"] & Command.MASTER


def test_a_filter_that_a_reset_emptied_first_is_noted(guest: Guest, say: Say) -> None:
    """The port refuses to clear it, and it is clear: the hand-off was not refused."""
    tell(say, "set_mac", mac=MAC.hex(":"))
    tell(say, "clear_filter_on_release", name="vf0")
    guest.device.port.vf_was_reset()
    tell(say, "set_bus_master", on=False)
    assert [list(each["data"]) for each in tell(say, "released")] == [["note"]]


def test_what_the_port_refuses_is_told_with_its_errno(guest: Guest) -> None:
    """A host treats one errno as no error: from the words alone it could not tell."""
    near, far = socket.socketpair()
    guest.device.port.set_mac(MAC)
    guest.device.port.vf_was_reset()
    connection = ControlConnection(far, Control(guest.device, lambda: True))
    asking = twin_control.TwinControl("alder: vf0", near)
    with closing(connection), closing(asking), ThreadPoolExecutor(1) as pool:
        served = pool.submit(connection.serve)
        with pytest.raises(twin_control.TwinRefused) as refused:
            asking.ask("set_mac", mac="00:00:00:00:00:00")
        assert served.result(5)
    assert refused.value.number == ENOMEM
    assert refused.value.because == "it said: Cannot allocate memory"


def test_what_the_bridge_refuses_is_kept_with_the_moment(
    guest: Guest, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames go on to a VF that nobody has: the migration's worst outage has its cause here."""
    monkeypatch.setattr(guest.device, "follow_filter", lambda: "no entry")
    tell(say, "clear_filter_on_release", name="vf0")
    tell(say, "set_bus_master", on=False)
    assert [each["data"] for each in tell(say, "released")] == [{"error": "no entry"}]
    said = say(b'{"do": "set_mac", "mac": "02:00:00:00:00:07"}')
    assert said == {"error": "the host's bridge refused it: no entry"}


def test_who_asks_and_does_not_read_is_given_up(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The VF stands still while an answer cannot be got rid of."""
    monkeypatch.setattr(control, "_READ_SECONDS", 0.01)
    near, far = socket.socketpair()
    connection = ControlConnection(far, Control(guest.device, lambda: True))
    near.sendall(b'{"do": "status"}\n' * 2000)
    while connection.serve():
        pass
    near.close()
    connection.close()


def test_an_announcement_is_a_reverse_arp_request_to_everybody(guest: Guest, say: Say) -> None:
    """RFC 903, as QEMU sends it for its own interfaces; 60 bytes, as a frame has at least."""
    tell(say, "announce", mac=MAC.hex(":"))
    (frame,) = guest.sent
    assert frame[:14] == b"\xff" * 6 + MAC + b"\x80\x35"
    assert frame[20:42] == b"\0\3" + (MAC + bytes(4)) * 2
    assert len(frame) == 60


def test_writes_go_through_the_client_once_they_are_to_be_tracked(guest: Guest, say: Say) -> None:
    """There is no client here that could take them: the frame is missed, not put in straight."""
    tell(say, "set_tracked", on=True)
    guest.hear(frame_of(60))
    assert guest.rx[0].took() == []
    tell(say, "set_tracked", on=False)
    guest.hear(frame_of(60))
    assert len(guest.rx[0].took()) == 1


def test_a_host_that_takes_the_bus_from_a_vf_gives_it_back_as_it_was(
    guest: Guest, say: Say
) -> None:
    """Its rings stand as they were: frames come in again, and its driver has noticed nothing."""
    tell(say, "set_bus_master", on=False)
    guest.hear(frame_of(60))
    assert guest.rx[0].took() == []
    tell(say, "set_bus_master", on=True)
    guest.hear(frame_of(60))
    assert len(guest.rx[0].took()) == 1


def test_a_function_reset_keeps_command_and_takes_the_rings(guest: Guest, say: Say) -> None:
    """As VFIO_DEVICE_RESET does: the kernel puts configuration space back, and nothing else."""
    (ring,) = tell(say, "receive_rings")
    assert (ring["count"], ring["head"], ring["tail"]) == (16, 0, 15)
    command = tell(say, "now")["command"]
    tell(say, "reset_function")
    assert tell(say, "now")["command"] == command
    assert tell(say, "receive_rings") == []
    guest.hear(frame_of(60))
    assert guest.rx[0].took() == []
