"""A test that asks for another kind of VF than its guest has is told which need to name."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest
from made_up_host import ENTRY, vf_address

from harness.errors import UsageError
from harness.host.port import find_port
from harness.host.twin import Twin
from harness.host.twin_control import TwinControl
from harness.host.virtual_function import VirtualFunction
from harness.remote import Host
from harness.topology import PciAddress


def test_a_ports_vf_is_no_twin(host: Host) -> None:
    port = find_port(host, "p0", ENTRY.ports["p0"])
    lent = VirtualFunction(port, 0, PciAddress(vf_address(0)))
    assert VirtualFunction.of(lent) is lent
    with pytest.raises(UsageError, match="is no twin") as error:
        Twin.of(lent)
    assert 'needs("twin")' in error.value.fix


def test_a_twin_is_no_ports_vf(host: Host, tmp_path: Path) -> None:
    near, far = socket.socketpair()
    with far, closing(TwinControl("alder: vf0", near)) as control:
        twin = Twin(host, "vf0", str(tmp_path), "vfh0-vf0", control)
        assert Twin.of(twin) is twin
        with pytest.raises(UsageError, match="alder: VF vf0 belongs to no port") as error:
            VirtualFunction.of(twin)
    assert 'needs("sriov")' in error.value.fix
