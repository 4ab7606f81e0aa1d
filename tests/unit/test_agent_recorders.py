"""Recorders: started, stopped, killed; what the kernel's log and its links become."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import alive, bare_agent, children

from harness.agent import kernel_log, links, netlink
from harness.errors import RemoteError
from harness.remote import HostGoneError
from harness.remote.agent import AgentClient
from harness.uapi import rtnetlink
from harness.waiting import wait_for


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentClient]:
    with bare_agent(tmp_path_factory.mktemp("agent")) as client:
        yield client


def test_recorder_says_ready_and_gives_a_summary(agent: AgentClient, tmp_path: Path) -> None:
    """`ready` comes when it records: the first line is from before it was asked for anything."""
    path = tmp_path / "links.jsonl"
    started = agent.call("start", program="links", spec={"path": str(path)})
    assert "lo" in started["ready"]["links"]
    assert agent.call("stop", recorder=started["recorder"])["lost"] == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["event"] for line in lines} == {"was"}
    with pytest.raises(RemoteError, match="there is no recorder"):
        agent.call("stop", recorder=started["recorder"])


def test_a_recorder_that_cannot_start_says_why(agent: AgentClient) -> None:
    """sonic-mgmt waited 35 minutes for a capture whose stderr had been thrown away."""
    with pytest.raises(RemoteError, match=r"No such file or directory: '/no/such/folder"):
        agent.call("start", program="links", spec={"path": "/no/such/folder/x"})
    with pytest.raises(RemoteError, match="ended by itself") as unknown:
        agent.call("start", program="links-of-chain", spec={})
    assert "unknown program 'links-of-chain'" in unknown.value.because


def test_a_recorder_that_died_is_an_error_not_a_summary(agent: AgentClient, tmp_path: Path) -> None:
    """No data is never the same as nothing happened."""
    started = agent.call("start", program="links", spec={"path": str(tmp_path / "links")})
    (recorder,) = [
        pid
        for pid in children(agent.call("hello")["pid"])
        if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"links\0")
    ]
    os.kill(recorder, signal.SIGKILL)
    with pytest.raises(RemoteError, match="the recorder links ended by itself"):
        agent.call("stop", recorder=started["recorder"])


def test_recorders_end_with_their_agent(tmp_path: Path) -> None:
    """One that outlived it would go on writing, and on holding a VF's descriptor."""
    with bare_agent(tmp_path) as client:
        client.call("start", program="links", spec={"path": str(tmp_path / "links")})
        (recorder,) = children(client.call("hello")["pid"])
    assert not alive(recorder)


def test_an_agent_killed_takes_its_recorders_along(tmp_path: Path) -> None:
    """SIGKILL leaves no time for goodbyes: they must notice that their stdin has ended."""
    with bare_agent(tmp_path) as client:
        client.call("start", program="links", spec={"path": str(tmp_path / "links")})
        server = client.call("hello")["pid"]
        (recorder,) = children(server)
        os.kill(server, signal.SIGKILL)
        with pytest.raises(HostGoneError):
            client.call("hello")
        wait_for("the recorder ends", lambda: not alive(recorder), within=5)


def test_kernel_log_record_is_parsed() -> None:
    """A record as /dev/kmsg gives it, with the lines that name its device."""
    record = b"12,393,2825798477,-;ixgbe 0000:01:00.0: Reset adapter\n SUBSYSTEM=pci\n"
    message = kernel_log.parse(record)
    assert message == {
        "level": "warn",
        "text": "ixgbe 0000:01:00.0: Reset adapter",
        "sequence": 393,
        "kernel_us": 2825798477,
    }
    assert kernel_log.FAULT.search(message["text"])


@pytest.mark.parametrize(
    "text",
    [
        "WARNING: CPU: 1 PID: 7 at drivers/pci/iov.c:1 pci_iov_add+0x1",
        "BUG: unable to handle page fault for address: ffff",
        "DMAR: [DMA Write NO_PASID] Request device [01:10.0] fault addr 0xfe000 [fault reason 0x5]",
        "AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0015 address=0xfe000 flags=0x0020]",
        "pcieport 0000:00:01.0: AER: Uncorrectable (Fatal) error message received",
        "NETDEV WATCHDOG: CPU: 0: transmit queue 0 timed out 5120 ms",
        "INFO: task qemu-system-x86:312 blocked for more than 120 seconds.",
    ],
)
def test_kernel_faults_are_found(text: str) -> None:
    """A run that broke the host must not be measured as if nothing had happened."""
    assert kernel_log.FAULT.search(text)


def test_ordinary_kernel_lines_are_no_faults() -> None:
    """A healthy host says these in every run; a false alarm in each would be switched off."""
    for text in ("vfio-pci 0000:01:10.0: enabling device", "DMAR: IOMMU enabled", "debugging on"):
        assert not kernel_log.FAULT.search(text)


def test_kernel_log_is_recorded_from_now_on(agent: AgentClient, tmp_path: Path) -> None:
    """What was said before belongs to another test; what is said at the very end is still ours."""
    if not os.access("/dev/kmsg", os.R_OK | os.W_OK):
        pytest.skip("/dev/kmsg may not be used here; needs root outside of a container")
    path = tmp_path / "kernel.jsonl"
    Path("/dev/kmsg").write_text("<6>vf-harness: a test says this before\n")
    started = agent.call("start", program="kernel-log", spec={"path": str(path)})
    before_ns = time.monotonic_ns()
    Path("/dev/kmsg").write_text("<4>vf-harness: a test says this during\n")
    summary = agent.call("stop", recorder=started["recorder"])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    ours = [line for line in lines if line["text"].startswith("vf-harness: a test says")]
    assert [line["text"] for line in ours] == ["vf-harness: a test says this during"]
    assert ours[0]["level"] == "warn"
    assert before_ns < ours[0]["t_ns"] < time.monotonic_ns()
    assert summary["lost"] == 0


def test_a_message_begins_at_a_multiple_of_four_bytes() -> None:
    """A header's length does not count the padding after it; read as data, all behind is lost."""
    odd = bytes(rtnetlink.Nlmsghdr(nlmsg_len=17, nlmsg_type=rtnetlink.Control.ERROR)) + b"x\0\0\0"
    done = bytes(rtnetlink.Nlmsghdr(nlmsg_len=16, nlmsg_type=rtnetlink.Control.DONE))
    assert list(netlink.messages(odd + done)) == [
        (rtnetlink.Control.ERROR, b"x"), (rtnetlink.Control.DONE, b""),
    ]  # fmt: skip


def test_links_message_is_parsed() -> None:
    """A bridge port's message, taken from a kernel, with one attribute of each kind we read."""
    told = rtnetlink.LinkAttribute
    body = bytes(rtnetlink.Ifinfomsg(ifi_index=7, ifi_flags=rtnetlink.InterfaceFlag.RUNNING))
    for kind, value in (
        (told.IFNAME, b"eth1\0"),
        (told.ADDRESS, bytes.fromhex("525400123456")),
        (told.OPERSTATE, b"\6"),
        (told.CARRIER, b"\1"),
        (told.MTU, (9000).to_bytes(4, sys.byteorder)),
        (told.MASTER, (3).to_bytes(4, sys.byteorder)),
    ):
        body += netlink.attribute(kind, value)
    new = rtnetlink.RouteMessage.NEWLINK
    header = bytes(rtnetlink.Nlmsghdr(nlmsg_len=16 + len(body), nlmsg_type=new))
    ((number, link),) = links.parse(header + body)
    assert number == new
    assert link == {
        "index": 7,
        "ifname": "eth1",
        "address": "52:54:00:12:34:56",
        "operstate": "up",
        "carrier": True,
        "running": True,
        "master": 3,
        "mtu": 9000,
    }
    of_bridge = bytes([links.AF_BRIDGE]) + body[1:]
    assert list(links.parse(header + of_bridge)) == [], "the bridge says it again, in part"
