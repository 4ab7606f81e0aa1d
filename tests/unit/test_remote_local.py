"""A network namespace of this machine as a host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import Sshd, local_host

from harness.errors import RemoteError
from harness.remote import Host, connect


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def _guest(sshd: Sshd, folder: Path, via: Host) -> Host:
    run, state = str(folder / "guest/run"), str(folder / "guest/state")
    return connect("guest", sshd.connection, via=via, folder=run, state=state)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace of our own."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and `ip`; neither may be missing in CI")
    name = f"vfh-remote-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def test_links_of_a_namespace_are_recorded(namespace: str, tmp_path: Path) -> None:
    """What a hand-off looks like in a guest: a link comes, goes up, joins a master, goes."""
    with local_host(tmp_path, namespace=namespace) as host:
        path = host.scratch("links")
        recorder = host.start("links", {"path": path})
        assert recorder.ready == {"links": ["lo"]}, "commands and recorders run in the namespace"
        for words in (
            "link add vf0 type veth peer name wire",
            "link add bond type bridge",
            "link set vf0 mtu 9000",
            "link set vf0 master bond",
            "link set vf0 up",
            "link set wire up",
            "link del vf0",
        ):
            host.run("ip", *words.split())
        summary = recorder.stop()
        assert recorder.stop() == summary
        lines = [json.loads(line) for line in host.fetch(path).splitlines()]
    seen = [line for line in lines if line["ifname"] == "vf0"]
    assert seen[0]["event"] == "new"
    assert seen[-1]["event"] == "del"
    bridge = next(line["index"] for line in lines if line["ifname"] == "bond")
    carriers = [line for line in seen if line["carrier"]]
    assert carriers[0]["master"] == bridge
    assert (carriers[-1]["mtu"], carriers[-1]["operstate"]) == (9000, "up")
    times = [line["t_ns"] for line in lines]
    assert times == sorted(times)
    assert summary["changes"] == sum(line["event"] != "was" for line in lines)


def test_namespace_is_where_a_local_host_connects_from(
    namespace: str, sshd: Sshd, tmp_path: Path
) -> None:
    """A twin lab's guests are reached from their host's namespace, where sshd here is not."""
    refused = rf"connecting to 127\.0\.0\.1 port {sshd.port}"
    apart = local_host(tmp_path, namespace=namespace)
    with apart, pytest.raises(RemoteError, match=refused):
        connect("guest", sshd.connection, via=apart)
    with local_host(tmp_path) as host, _guest(sshd, tmp_path, via=host) as guest:
        assert guest.run("true").status == 0
    with pytest.raises(RemoteError, match="there is no network namespace nowhere"):
        local_host(tmp_path, namespace="nowhere")
