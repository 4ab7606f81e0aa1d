"""VFs are lent and taken back, on a made-up host whose kernel refuses what a real one does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from made_up_host import ENTRY, INTERFACE, PF, PORT, VFIO_DRIVER, Machine, vf_address

from harness.errors import LabError, RemoteError, RestoreError, WaitError
from harness.host import port as port_module
from harness.host import sriov
from harness.host.changes import changed_back, set_attribute
from harness.host.port import Port, find_port
from harness.host.snapshot import snapshot
from harness.host.sriov import virtual_functions
from harness.host.vf import NO_MAC, Ring
from harness.remote import Host
from harness.topology import CapabilityEntry, FieldEntry, MacAddress

MAC = MacAddress("52:54:00:12:34:56")


@pytest.fixture
def port(host: Host, machine: Machine) -> Port:
    """A port that is up and has its link."""
    machine.shown[INTERFACE] |= {"flags": ["LOWER_UP", "UP"], "operstate": "UP"}
    return find_port(host, "p0", ENTRY.ports["p0"])


def test_lent_vfs_are_numbered_and_bound_to_vfio(port: Port, machine: Machine) -> None:
    """A VF that keeps the host's own driver, or another's address, is somebody else's."""
    with virtual_functions(port, 2) as vfs:
        assert [(vf.index, vf.pci) for vf in vfs] == [(0, vf_address(0)), (1, vf_address(1))]
        assert [vf.iommu_group for vf in vfs] == ["40", "41"]
        for vf in vfs:
            assert machine.links[f"/sys/bus/pci/devices/{vf.pci}/driver"].endswith("/vfio-pci")


def test_no_driver_of_the_host_sees_the_vfs(port: Port, machine: Machine) -> None:
    """A driver of the host would give the VF an address and a reset before its first guest."""
    with virtual_functions(port, 1):
        assert machine.changes[:2] == ["sriov_drivers_autoprobe = 0", "sriov_numvfs = 1"]


def test_taking_back_undoes_the_last_change_first(port: Port, machine: Machine) -> None:
    """With autoprobe on again before the VFs are gone, the host's own driver takes them.

    A port that is up may count the VFs' frames in records that its driver has just freed.
    """
    with virtual_functions(port, 1):
        machine.changes.clear()
    assert machine.changes == [
        f"ip link set dev {INTERFACE} down", "sriov_numvfs = 0",
        f"ip link set dev {INTERFACE} up", "sriov_drivers_autoprobe = 1",
    ]  # fmt: skip


def test_a_port_is_put_back_when_the_test_fails(port: Port, machine: Machine) -> None:
    """The next test finds whatever a failed test left."""
    before = snapshot(port.host, ENTRY)
    with pytest.raises(ZeroDivisionError), virtual_functions(port, 1):
        raise ZeroDivisionError
    before.check_same(snapshot(port.host, ENTRY))
    assert machine.call("journal.pending") == []


def test_a_port_that_has_vfs_is_not_touched(port: Port, machine: Machine) -> None:
    """Whoever made them may be using them; not even the attribute beside them is ours to write."""
    machine.files[f"{PORT}/sriov_numvfs"] = "4\n"
    with (
        pytest.raises(LabError, match=f"alder: {PF} already has 4 VFs"),
        virtual_functions(port, 1),
    ):
        pytest.fail("VFs were lent")
    assert machine.changes == []


def test_the_kernel_refuses_to_go_from_n_to_m(port: Port, machine: Machine) -> None:
    """The fake is held to what was seen of the real one, or the tests above would prove nothing."""
    with virtual_functions(port, 1), pytest.raises(RemoteError, match="EBUSY"):
        set_attribute(port.host, f"{PORT}/sriov_numvfs", "2")
    assert machine.files[f"{PORT}/sriov_numvfs"] == "0\n", "a refused change has no way back"


def test_a_vf_that_the_kernel_does_not_show_is_the_labs_fault(
    port: Port, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver took the number, and no device came on the bus."""
    monkeypatch.setattr(sriov, "APPEAR_SECONDS", 0.05)
    monkeypatch.setattr(machine, "_make_vfs", lambda _path, _text: None)
    with pytest.raises(LabError, match=r"alder: .*/virtfn0"), virtual_functions(port, 1):
        pytest.fail("a VF was lent")


def test_without_vfio_the_error_says_what_to_load(
    port: Port, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VF without a driver would show only as a guest that does not start."""
    monkeypatch.setattr(sriov, "APPEAR_SECONDS", 0.05)
    machine.folders.discard(VFIO_DRIVER)
    with pytest.raises(LabError) as missing, virtual_functions(port, 1):
        pytest.fail("a VF was lent")
    assert "last seen: 'no driver'" in missing.value.because
    assert "modprobe vfio-pci" in missing.value.fix
    assert machine.files[f"{PORT}/sriov_numvfs"] == "0\n"


def test_the_filter_is_set_for_the_vf_by_its_number(port: Port, machine: Machine) -> None:
    """The port knows a VF by its number, not by its PCI address; another's filter is a leak."""
    with virtual_functions(port, 2) as vfs:
        vfs[1].set_filter(MacAddress("52:54:00:12:34:56"))
        vfs[1].set_filter(NO_MAC)
        assert machine.changes[-2:] == [
            f"ip link set dev {INTERFACE} vf 1 mac 52:54:00:12:34:56",
            f"ip link set dev {INTERFACE} vf 1 mac 00:00:00:00:00:00",
        ]


RESETS: dict[str, Callable[[Machine], None]] = {
    "function reset": lambda machine: machine.reset_vf(0),
    "port reset": Machine.reset_port,
}


@pytest.mark.parametrize("reset", RESETS)
def test_a_filter_that_a_reset_has_emptied_counts_as_cleared(
    port: Port, machine: Machine, reset: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A guest that was killed leaves its VF reset: every later test of its module would fail.

    ``ip link`` goes on showing the address, and nothing of ours takes that for a filter.
    """
    caplog.set_level("INFO", "harness.commands")
    with virtual_functions(port, 1) as (vf,):
        vf.set_filter(MAC)
        RESETS[reset](machine)
        vf.set_filter(NO_MAC)
        assert port.filters() == {0: MAC}
        vf.set_filter(NO_MAC)
        assert f"[alder] # {vf.pci}: the filter was empty already" in caplog.text
        vf.set_filter(MAC)
        vf.set_filter(NO_MAC)
        assert port.filters() == {0: NO_MAC}


@pytest.mark.parametrize(
    ("mac", "left", "index", "because"),
    [
        (MAC, 0, 0, "'RTNETLINK answers: Cannot allocate memory': the port has no receive address"),
        (MAC, 127, 1, "'RTNETLINK answers: Invalid argument': the port has no VF of that number"),
        (MacAddress("01:00:5e:00:00:01"), 127, 0, "it must be unicast"),
    ],
)
def test_what_the_ports_driver_refuses_is_told_with_its_meaning(
    port: Port, machine: Machine, mac: MacAddress, left: int, index: int, because: str
) -> None:
    """`Cannot allocate memory` sends a person to look for memory, which is not what is short."""
    with virtual_functions(port, 1) as (vf,):
        machine.registers_left = left
        with pytest.raises(RemoteError, match=f"alder: the filter of VF {index} of") as refused:
            replace(vf, index=index).set_filter(mac)
        assert because in refused.value.because


def test_more_vfs_than_the_driver_allows_are_refused_with_its_reason(
    port: Port, machine: Machine
) -> None:
    """`Operation not permitted` sends a person to look for rights; classes take VFs away."""
    machine.most_vfs = 1
    with (
        pytest.raises(LabError, match=f"alder: ixgbe makes no 2 VFs on {INTERFACE}") as refused,
        virtual_functions(port, 2),
    ):
        pytest.fail("they were made")
    assert refused.value.because.startswith("it refused with EPERM: that is more than it allows")
    assert machine.call("journal.pending") == []


def test_vfs_beside_an_xdp_program_are_refused_with_what_is_in_their_way(
    port: Port, machine: Machine
) -> None:
    """`Invalid argument` sends a person to look at the number of VFs, which is right."""
    machine.has_xdp = True
    with pytest.raises(LabError) as refused, virtual_functions(port, 2):
        pytest.fail("they were made")
    assert "an XDP program is on the port" in refused.value.because
    assert machine.call("journal.pending") == []


def test_what_else_a_port_refuses_keeps_the_kernels_words(port: Port, machine: Machine) -> None:
    """Another errno is not explained by the driver's own rules."""
    machine.files[f"{PORT}/sriov_totalvfs"] = "1\n"
    with pytest.raises(RemoteError, match="ERANGE"), virtual_functions(port, 2):
        pytest.fail("they were made")


def test_the_observer_is_told_which_filter_to_clear(port: Port, machine: Machine) -> None:
    """The harness names port and VF as the kernel does; a wrong name would cut off a guest."""
    with virtual_functions(port, 1) as (vf,):
        vf.observe(
            qemu_pid=7, rate_per_s=500, path="/run/bme.jsonl", on_release="filter cleared",
            capabilities={},
        )  # fmt: skip
    assert machine.started == [("observer", {
        "host": "alder", "vf": vf.pci, "qemu_pid": 7, "path": "/run/bme.jsonl", "rate_per_s": 500,
        "on_release": [
            {"name": "filter cleared", "port": INTERFACE, "vf_index": 0, "mac": NO_MAC},
        ],
    })]  # fmt: skip


def test_the_observer_is_told_where_described_registers_are(port: Port, machine: Machine) -> None:
    """The observer reads from the first field on, which is behind the capability's beginning."""
    described = {"msix": CapabilityEntry(offset=0x70, fields={"C": FieldEntry(offset=2, bytes=2)})}
    with virtual_functions(port, 1) as (vf,):
        vf.observe(
            qemu_pid=7, rate_per_s=500, path="/run/bme.jsonl", on_release=None,
            capabilities=described,
        )  # fmt: skip
    ((_, spec),) = machine.started
    assert spec["capabilities"] == [{"name": "msix", "offset": 0x72, "length": 2}]


@pytest.mark.parametrize(("dumped", "masters"), [(" 0406\n", True), (" 0402\n", False)])
def test_bus_mastering_is_bit_2_of_the_command_register(
    port: Port, machine: Machine, dumped: str, masters: bool
) -> None:
    """A wrong offset or bit reads as something that is always set or always clear."""
    with virtual_functions(port, 1) as (vf,):
        config = f"/sys/bus/pci/devices/{vf.pci}/config"
        machine.programs["od"] = lambda argv: (0, dumped) if argv[-3:] == [
            "-j4", "-N2", config,
        ] else (1, "asked for something else")  # fmt: skip
        assert vf.is_master() is masters


def test_a_vf_that_no_driver_takes_up_is_told_with_its_host(port: Port, machine: Machine) -> None:
    """The host waited for Bus Master Enable; what is wrong is inside the guest."""
    with virtual_functions(port, 1) as (vf,):
        vf.wait_for_bme(seconds=5, fix="see the console")
        machine.has_bme = False
        with pytest.raises(WaitError, match=f"alder: waited 5 s .* take up VF {vf.pci}") as late:
            vf.wait_for_bme(seconds=5, fix="see the console")
    assert "COMMAND register read 0x0000" in late.value.because
    assert late.value.fix == "see the console"


def test_no_more_vfs_are_made_than_the_lab_lends(port: Port, machine: Machine) -> None:
    """A person wrote down how many may be taken from a port that others use too."""
    with (
        pytest.raises(LabError, match=r"3 VFs are wanted .*, 2 are allowed"),
        virtual_functions(port, 3),
    ):
        pytest.fail("they were made")
    assert machine.changes == []


def test_a_port_has_its_link_again_once_its_vfs_are_lent(port: Port, machine: Machine) -> None:
    """ixgbe_sriov_reinit takes the link, and a migration must not begin without one."""
    with virtual_functions(port, 1):
        assert "LOWER_UP" in machine.shown[INTERFACE]["flags"]


def test_a_link_that_does_not_come_back_is_told_as_it_was_last_seen(
    port: Port, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state alone would make the port pass for one with a link."""
    monkeypatch.setattr(port_module, "LINK_SECONDS", 0.05)
    machine.looks_without_link = 1000
    with (
        pytest.raises(LabError, match=f"alder: a link on {INTERFACE}") as late,
        virtual_functions(port, 1),
    ):
        pytest.fail("a VF was lent")
    assert "no carrier, state UP" in late.value.because
    assert machine.files[f"{PORT}/sriov_numvfs"] == "0\n"


def test_the_rings_of_a_vf_are_those_of_its_queues_that_work(port: Port, machine: Machine) -> None:
    """A guest with two processors receives in the second queue too; the last has no length."""
    machine.registers = {
        0x1000: 0x8000, 0x1004: 1, 0x1008: 512 * 16, 0x1010: 7, 0x1018: 500, 0x1028: 0x02000000,
        0x1040: 0xA000, 0x1048: 256 * 16, 0x1050: 3, 0x1058: 250, 0x1068: 0x02000000,
        0x1080: 0xC000, 0x1088: 256 * 16,
        0x10C0: 0xE000, 0x10E8: 0x02000000,
    }  # fmt: skip
    with virtual_functions(port, 1) as (vf,):
        found = vf.receive_rings(qemu_pid=1)
    assert found == [Ring(0x1_0000_8000, 512, 7, 500), Ring(0xA000, 256, 3, 250)]


def test_a_vf_that_does_not_answer_has_no_rings(port: Port, machine: Machine) -> None:
    """All ones would mean that every queue works, with rings of 268 million descriptors."""
    machine.registers = dict.fromkeys(range(0x1000, 0x1200, 4), 0xFFFFFFFF)
    with virtual_functions(port, 1) as (vf,):
        assert vf.receive_rings(qemu_pid=1) == []


# --- changes --------------------------------------------------------------------------------


def test_changes_from_before_the_body_stay(host: Host, machine: Machine) -> None:
    """A test's undo that reached further would take the lab away from under the others."""
    with changed_back(host):
        set_attribute(host, f"{PORT}/sriov_drivers_autoprobe", "0")
        with changed_back(host):
            set_attribute(host, f"/sys/class/net/{INTERFACE}/mtu", "9000")
        assert machine.files[f"{PORT}/sriov_drivers_autoprobe"] == "0\n"
        assert machine.shown[INTERFACE]["mtu"] == 1500
    assert machine.files[f"{PORT}/sriov_drivers_autoprobe"] == "1\n"


def test_a_change_that_cannot_be_undone_is_named_and_the_others_are_undone(
    host: Host, machine: Machine
) -> None:
    """A failed undo must neither stop the others nor stay unknown."""
    autoprobe, mtu = f"{PORT}/sriov_drivers_autoprobe", f"/sys/class/net/{INTERFACE}/mtu"
    set_attribute(host, autoprobe, "0")
    set_attribute(host, mtu, "9000")
    del machine.files[mtu]
    with pytest.raises(RestoreError, match=f"alder: not undone: {mtu} = 9000"):
        host.undo()
    assert machine.files[autoprobe] == "1\n"
    assert [entry["what"] for entry in host.pending()] == [f"{mtu} = 9000"]
