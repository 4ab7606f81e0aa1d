"""The provider ``sriov``: VFs of a port, made and bound to vfio-pci; taken back, it has none again.

Every change is in the host's journal before it is made, so the host itself can put them back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.errors import HarnessError, LabError, RemoteError
from harness.host.changes import changed_back, set_attribute
from harness.host.port import Port, wait_for_link
from harness.host.virtual_function import VFIO, VirtualFunction
from harness.remote import Host
from harness.topology import PciAddress
from harness.waiting import wait_for

APPEAR_SECONDS = 10


@contextmanager
def virtual_functions(port: Port, count: int) -> Iterator[list[VirtualFunction]]:
    """Lend *count* VFs of *port*; VF 0 first, none with a MAC filter yet.

    The port must be up: a VF made on one that is down gets no address and a late link.  It has its
    link again when this yields, which making VFs took away.  A port that already has VFs is not
    touched.  Raises LabError, also for a VF or a link that does not come.
    """
    if count > (allowed := port.vfs_allowed):
        raise LabError(
            f"{port.host.name}: {count} VFs are wanted on {port.pci}, {allowed} are allowed",
            because=f"its lab lends no more (`vfs` of port {port.name}), so nothing was changed",
            fix="ask for fewer, or have the topology allow more",
        )
    taken = port.virtual_functions
    if taken:
        raise LabError(
            f"{port.host.name}: {port.pci} already has {taken} VFs",
            because="someone may be using them, so nothing was changed",
            fix=f"free them, run `vf-harness restore --lab LAB {port.host.name}`, or name another "
            "port",
        )
    with changed_back(port.host) as host:
        # Without a driver of the host's own on them: the guest is to be their first user.
        set_attribute(host, f"{port.device}/sriov_drivers_autoprobe", "0")
        _undone_by(host, port, "up")
        try:
            set_attribute(host, f"{port.device}/sriov_numvfs", str(count))
        except RemoteError as refused:
            raise _no_vfs(port, count, refused) from None
        _undone_by(host, port, "down")
        lent = [_bound(port, index) for index in range(count)]
        wait_for_link(port)
        yield lent


def _undone_by(host: Host, port: Port, state: str) -> None:
    """Journal that undoing sets the port *state*, up or down, at this point; change nothing now.

    So VFs are taken away from a port that is down.  While ixgbe's port is up, the driver may count
    VFs' frames in records that it has just freed (ixgbe_update_stats and ixgbe_disable_sriov, Linux
    6.12: a kernel oops, after which the port gets no link any more).  It is done for every family,
    since making and taking VFs cuts their link in any case.
    """
    host.change(
        f"{port.interface} {state}, when its VFs are taken away",
        do={"kind": "run", "argv": ["true"]},
        undo={"kind": "run", "argv": ["ip", "link", "set", "dev", port.interface, state]},
    )


def _no_vfs(port: Port, count: int, refused: RemoteError) -> HarnessError:
    """Return the error that says why the kernel or the driver refused to make *count* VFs."""
    meant = next((_NO_VFS[name] for name in _NO_VFS if name in refused.what), None)
    if meant is None:
        return refused
    because, fix = meant
    driver, name = port.profile.pf_driver.value, refused.what.rpartition(": ")[2]
    return LabError(
        f"{port.host.name}: {driver} makes no {count} VFs on {port.interface}",
        because=f"it refused with {name}: {because}",
        fix=fix,
    )


_NO_VFS = {
    "EPERM": (
        "that is more than it allows, 63 on an 82599, 31 where the port has 2 to 4 traffic "
        "classes, 15 where it has more, and one less for each offloaded macvlan "
        "(ixgbe_pci_sriov_enable)",
        "ask for fewer, or take traffic classes (`tc qdisc show`) and macvlans off the port",
    ),
    "EINVAL": (
        "the driver makes no VFs while an XDP program is on the port (__ixgbe_enable_sriov)",
        "see the kernel log; `ip link show` names the program, `ip link set dev PORT xdp off` "
        "takes it off",
    ),
    "ENOMEM": (
        "the bridge above the port has no room for the VFs' registers or bus numbers "
        "(drivers/pci/iov.c, sriov_enable), or the kernel has no memory for their records",
        "see the kernel log; turn SR-IOV on in the firmware's set-up, or boot with "
        "pci=realloc,assign-busses",
    ),
}
"""Each errno of a write to ``sriov_numvfs`` has a meaning, and something to do."""


def _bound(port: Port, index: int) -> VirtualFunction:
    """VF *index* of *port*, once the kernel shows it and vfio-pci has it.

    The override goes with the VF, so it needs no way back of its own.
    """
    host = port.host
    link = f"{port.device}/virtfn{index}"
    wait_for(
        f"{host.name}: {link}", lambda: host.exists(link), within=APPEAR_SECONDS, error=LabError
    )
    pci = PciAddress(host.readlink(link).rpartition("/")[2])
    device = f"/sys/bus/pci/devices/{pci}"
    host.write_text(f"{device}/driver_override", VFIO)
    host.write_text("/sys/bus/pci/drivers_probe", pci)
    wait_for(
        f"{host.name}: {VFIO} to take {pci}",
        lambda: _driver(host, device),
        within=APPEAR_SECONDS,
        until=lambda driver: driver == VFIO,
        fix="`modprobe vfio-pci`, and see that the IOMMU is on (intel_iommu=on)",
        error=LabError,
    )
    vf = VirtualFunction(port, index, pci)
    node = f"/dev/vfio/{vf.iommu_group}"
    wait_for(f"{host.name}: {node}", lambda: host.exists(node), within=APPEAR_SECONDS)
    return vf


def _driver(host: Host, device: str) -> str:
    link = f"{device}/driver"
    return host.readlink(link).rpartition("/")[2] if host.exists(link) else "no driver"
