"""Twins started on a host, and ended: each is a program there, with a tap on the host's bridge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from harness.host.bridge import BRIDGE, tap
from harness.host.changes import changed_back
from harness.host.twin import Twin
from harness.host.twin_control import TwinControl
from harness.remote import Host
from harness.remote.zipapp import TWIN
from harness.topology import Capabilities, CapabilityEntry, TwinEntry
from harness.waiting import wait_for

START_SECONDS = 10


@contextmanager
def twins(
    host: Host,
    entry: TwinEntry,
    count: int,
    *,
    port_mtu: int,
    wire_mtu: int,
    capabilities: Capabilities,
) -> Iterator[list[Twin]]:
    """Lend *count* twins, on the host's bridge; none has a filter yet.

    *port_mtu* is that of the port that they pretend to belong to, *wire_mtu* what can be carried.
    They note changes of the registers of *capabilities*, and have those that a topology invents.
    """
    app = host.install(TWIN)
    options = [
        *("--port-mtu", str(port_mtu), "--link-mbit", str(entry.link_mbit)),
        "--erratum-35" if entry.erratum_35 else "--no-erratum-35",
        *(f"--capability={_told(name, each)}" for name, each in capabilities.items()),
    ]
    with changed_back(host), ExitStack() as stack:
        lent = []
        for index in range(count):
            name = f"vf{index}"
            wire = stack.enter_context(tap(host, name, mtu=wire_mtu))
            lent.append(stack.enter_context(_started(host, entry, app, name, wire, options)))
        yield lent


@contextmanager
def _started(
    host: Host, entry: TwinEntry, app: str, name: str, wire: str, options: list[str]
) -> Iterator[Twin]:
    folder = host.scratch(f"{BRIDGE}-{name}/twin.log").rpartition("/")[0]
    argv = [
        "python3", "-I", app, "--socket", f"{folder}/vf", "--control", f"{folder}/control",
        "--tap", wire, "--bme", f"{folder}/bme.jsonl", *options,
        *(["--dma-log", f"{folder}/dma.log"] if entry.dma_log else []),
    ]  # fmt: skip
    for left in ("vf", "control"):
        if host.exists(f"{folder}/{left}"):
            host.unlink(f"{folder}/{left}")  # of a twin that was killed; nobody listens there
    with changed_back(host):
        host.spawn(argv, log=f"{folder}/twin.log", what=f"twin {name}")
        wait_for(
            f"{host.name}: twin {name} to listen",
            lambda: host.exists(f"{folder}/control"),
            within=START_SECONDS,
            fix=f"see {folder}/twin.log on that host",
        )
        connection = host.socket_to(f"{folder}/control")
        with closing(TwinControl(f"{host.name}: {name}", connection)) as control:
            yield Twin(host, name, folder, wire, control)


def _told(name: str, entry: CapabilityEntry) -> str:
    """What a twin is told of a capability; see ``harness.twin.capability``."""
    offset, length = entry.span
    told: dict[str, Any] = {"name": name, "offset": offset, "length": length}
    if entry.twin_id is not None:
        places = [(entry.offset + field.offset, field.bytes) for field in entry.fields.values()]
        told |= {"id": entry.twin_id, "at": entry.offset, "writable": places}
    return json.dumps(told)
