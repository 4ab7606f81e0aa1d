"""A host that behaves as one with an 82599 does: its sysfs, its links, and its agent's journal.

It is asked as a real one is, through ``Host``; only what its agent would do is made up here.  The
kernel's refusals are kept: VFs go from 0 to n and from n to 0 only, and what is not there cannot
be read.  So are those of the port's driver, ``ixgbe``, v6.12; the names of its functions stand at
ours.  The journal is the agent's own, so the way back is the real one.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.agent.errors import AgentError
from harness.agent.journal import Journal
from harness.errors import LabBusy, RemoteError
from harness.remote.agent import AgentClient
from harness.remote.host import Host
from harness.remote.local import LocalTransport
from harness.remote.transport import HostGoneError
from harness.topology import HostEntry, PciAddress
from harness.uapi.pci_regs import Command

PF = PciAddress("0000:17:00.0")
PORT = f"/sys/bus/pci/devices/{PF}"
VFIO_DRIVER = "/sys/bus/pci/drivers/vfio-pci"
INTERFACE = "ens1f0"
ENTRY = HostEntry.model_validate(
    {"address": "192.0.2.11", "ports": {"p0": {"pci": PF, "device": "82599", "vfs": 2}}}
)


def vf_address(index: int) -> str:
    """Where VF *index* of the port is; they stand two apart, as those of an 82599 do."""
    return f"0000:17:10.{2 * index}"


NO_MAC = "00:00:00:00:00:00"
TCP_HEADER = "  sl  local_address rem_address   st tx_queue rx_queue"


class Machine(AgentClient):
    """The agent of the made-up host, and what it sees.

    files     the text of each file; links: the target of each link; folders: those that are empty
    shown     what ``ip -json -details link show`` says of each interface
    programs  what a command answers, by its first word: (status, stdout)
    changes   what was changed, in order: ``path = text`` or the command
    holder    who has the lease; "" if nobody has
    started   the recorders that were started, and what they were told
    registers what VFs have in BAR 0, by offset; 0 elsewhere
    msrs      what its processor has in MSRs, by their number; 0 elsewhere
    speeds    how many bytes a second each digest takes in, by its name
    digest_seconds  how long a guest's memory took
    records   the MAC address that the port's driver has of each VF (vf_mac_addresses)
    entries   the VFs whose address is in the port's filter
    registers_left  how many receive address registers the port has for its VFs
    looks_without_link  how often a port that was reset is looked at before its carrier is back
    most_vfs  how many VFs the port's driver makes
    has_xdp   whether an XDP program is on the port
    has_gone  whether its connection has ended
    has_bme   whether a VF that is waited for has BME set in time
    ahead_ns  how far its monotonic and its wall clock are ahead of our monotonic one
    """

    def __init__(self, state: Path) -> None:
        self.files = {
            f"{PORT}/device": "0x10fb\n",
            f"{PORT}/vendor": "0x8086\n",
            f"{PORT}/sriov_numvfs": "0\n",
            f"{PORT}/sriov_totalvfs": "63\n",
            f"{PORT}/sriov_drivers_autoprobe": "1\n",
            f"/sys/class/net/{INTERFACE}/mtu": "1500\n",
            "/dev/kvm": "",
            "/dev/net/tun": "",
            "/proc/net/tcp": f"{TCP_HEADER}\n   0: 00000000:0016 00000000:0000 0A 0:0\n",
        }
        self.links = {f"{PORT}/driver": "../../../../bus/pci/drivers/ixgbe"}
        self.folders = {
            f"{PORT}/net/{INTERFACE}", "/sys/class/net/lo", "/sys/class/iommu/dmar0", VFIO_DRIVER,
        }  # fmt: skip
        self.shown: dict[str, dict[str, Any]] = {
            INTERFACE: {
                "ifname": INTERFACE, "mtu": 1500, "flags": ["BROADCAST", "MULTICAST"],
                "operstate": "DOWN", "promiscuity": 0, "address": "02:00:00:00:17:00",
            }
        }  # fmt: skip
        self.programs: dict[str, Callable[[Sequence[str]], tuple[int, str]]] = {
            "true": lambda _: (0, ""),
            "ip": self._ip,
            "printenv": lambda _: (1, ""),
            "sh": lambda argv: (0, f"/usr/bin/{argv[-1]}\n"),
            "qemu-system-x86_64": lambda _: (0, "QEMU emulator version 8.2.0\n"),
        }
        self.changes: list[str] = []
        self.registers: dict[int, int] = {}
        self.msrs: dict[int, int] = {}
        self.speeds = {"crc32": 2e9, "blake2b": 1e9}
        self.digest_seconds = 1.0
        self.started: list[tuple[str, dict[str, Any]]] = []
        self.euid = 0
        self.holder = ""
        self.ahead_ns = (0, 0)
        self.has_bme = True
        self.records: dict[int, str] = {}
        self.entries: set[int] = set()
        self.registers_left = 127  # ixgbe_82599.c, IXGBE_82599_RAR_ENTRIES, but for the port's own
        self.looks_without_link = 2
        self.most_vfs = 63
        self.has_xdp = False
        self.has_gone = False
        self._name = state.name
        self._dark = 0
        self._journal = Journal(str(state))

    @property
    def is_gone(self) -> bool:
        return self.has_gone

    def call(self, verb: str, *, patience_s: float = 30.0, **args: Any) -> Any:
        """Do what the agent does for *verb*; raises RemoteError as its client does."""
        del patience_s
        if self.has_gone:
            raise HostGoneError(self._name, f"its agent went away during `{verb}`")
        try:
            return self._serve(verb, args)
        except AgentError as error:
            kind = LabBusy if error.busy else RemoteError
            raise kind(error.what, because=error.because, fix=error.fix) from None

    def close(self, seconds: float = 120.0) -> None:
        """There is nothing to end."""

    def reset_vf(self, index: int) -> None:
        """ixgbe_vf_reset_event: the VF's entry is taken out, its address stays on record."""
        self.entries.discard(index)

    def reset_port(self) -> None:
        """ixgbe_reset: ixgbe_flush_sw_mac_table takes out every entry, and the carrier falls.

        The state of a port that is up does not follow so fast (net/core/link_watch.c).
        """
        self.entries.clear()
        link = self.shown[INTERFACE]
        if "UP" in link["flags"]:
            link["flags"] = sorted({*link["flags"]} - {"LOWER_UP"})
            self._dark = self.looks_without_link

    def _serve(self, verb: str, args: dict[str, Any]) -> Any:
        verbs: dict[str, Callable[[], Any]] = {
            "hello": lambda: {"version": "1", "python": "3.11", "kernel": "6.12", "pid": 1,
                              "euid": self.euid, "hostname": "alder", "boot": "1"},
            "lease.take": lambda: self._lend(args["holder"]),
            "lease.renew": lambda: self.changes.append(f"lease for {args['seconds']} s"),
            "lease.linger": lambda: self.changes.append("lingers"),
            "lease.give_back": lambda: setattr(self, "holder", ""),
            "clock": self._clock,
            "bme.wait": lambda: Command.MASTER if self.has_bme else 0,
            "vf.registers": lambda: [self.registers.get(each, 0) for each in args["offsets"]],
            "memory.digest": lambda: {
                "pages": 65_536, "untouched": 0, "seconds": self.digest_seconds,
            },
            "memory.speeds": lambda: self.speeds,
            "msr.read": lambda: [self.msrs.get(args["register"], 0)],
            "start": lambda: self._start(args["program"], args["spec"]),
            "read": lambda: self._of(self.files, args["path"]),
            "readlink": lambda: self._of(self.links, args["path"]),
            "exists": lambda: self._there(args["path"]),
            "listdir": lambda: self._names(args["path"]),
            "write": lambda: self._write(args["path"], args["text"]),
            "run": lambda: self._run(args["argv"]),
            "journal.change": lambda: self._journal.change(perform=self._perform, **_named(args)),
            "journal.undo": lambda: self._journal.undo(
                self._perform, args["down_to"], args["only"]
            ),
            "journal.pending": self._journal.pending,
        }  # fmt: skip
        return verbs[verb]()

    def _start(self, program: str, spec: dict[str, Any]) -> dict[str, Any]:
        self.started.append((program, spec))
        return {"recorder": len(self.started), "ready": {}}

    def _lend(self, holder: str) -> int:
        if self.holder:
            raise AgentError(f"lent to {self.holder}", because="in use", fix="wait", busy=True)
        self.holder = holder
        return 1

    def _clock(self) -> dict[str, int]:
        now_ns = time.monotonic_ns()
        monotonic, wall = self.ahead_ns
        return {"monotonic_ns": now_ns + monotonic, "realtime_ns": now_ns + wall}

    def _of(self, texts: dict[str, str], path: str) -> str:
        if path not in texts:
            raise _refused(path, errno.ENOENT)
        return texts[path]

    def _there(self, path: str) -> bool:
        everything = {*self.files, *self.links, *self.folders}
        return any(each == path or each.startswith(f"{path}/") for each in everything)

    def _names(self, path: str) -> list[str]:
        if path == "/sys/class/net":
            return sorted(["lo", *self.shown])
        if not self._there(path):
            raise _refused(path, errno.ENOENT)
        below = [*self.files, *self.links, *self.folders]
        inside = [each.removeprefix(f"{path}/") for each in below if each.startswith(f"{path}/")]
        return sorted({each.partition("/")[0] for each in inside})

    def _perform(self, step: dict[str, Any]) -> None:
        if step["kind"] == "write":
            self._write(step["path"], step["text"])
            return
        assert step["kind"] == "run", step
        status, said = self._program(step["argv"])
        if status:
            raise AgentError(f"`{step['argv']}` failed", because=said, fix="run it by hand")

    def _write(self, path: str, text: str) -> None:
        if path == f"{PORT}/sriov_numvfs":
            self._make_vfs(path, text)
        elif path == "/sys/bus/pci/drivers_probe":
            self._probe(text)
        elif path not in self.files:
            raise _refused(path, errno.ENOENT)
        self.changes.append(f"{path.rpartition('/')[2]} = {text}")
        self.files[path] = f"{text}\n"
        if path == f"/sys/class/net/{INTERFACE}/mtu":
            self.shown[INTERFACE]["mtu"] = int(text)
            self.reset_port()  # ixgbe_change_mtu

    def _make_vfs(self, path: str, text: str) -> None:
        if self.files[path] != "0\n" and text != "0":
            raise _refused(path, errno.EBUSY)
        if int(text) > int(self.files[f"{PORT}/sriov_totalvfs"]):
            raise _refused(path, errno.ERANGE)
        if int(text) > self.most_vfs:
            raise _refused(path, errno.EPERM)  # ixgbe_pci_sriov_enable
        if self.has_xdp and text != "0":
            raise _refused(path, errno.EINVAL)  # __ixgbe_enable_sriov
        self.records = dict.fromkeys(range(int(text)), NO_MAC)  # ixgbe_vf_configuration
        self.reset_port()  # ixgbe_sriov_reinit
        self._show_filters()
        for index in range(int(text)):
            device = f"/sys/bus/pci/devices/{vf_address(index)}"
            self.links[f"{PORT}/virtfn{index}"] = f"../{vf_address(index)}"
            self.links[f"{device}/iommu_group"] = f"../../../kernel/iommu_groups/{40 + index}"
            self.files[f"{device}/driver_override"] = "(null)\n"
            if self.files[f"{PORT}/sriov_drivers_autoprobe"] == "1\n":
                self.links[f"{device}/driver"] = "../../../../bus/pci/drivers/ixgbevf"
        if text == "0":
            gone = (f"{PORT}/virtfn", "/sys/bus/pci/devices/0000:17:10.", "/dev/vfio/")
            for texts in (self.files, self.links):
                for each in [each for each in texts if each.startswith(gone)]:
                    del texts[each]

    def _probe(self, pci: str) -> None:
        device = f"/sys/bus/pci/devices/{pci}"
        if self._of(self.files, f"{device}/driver_override") != "vfio-pci\n":
            raise _refused("/sys/bus/pci/drivers_probe", errno.EINVAL)
        if f"{device}/driver" not in self.links and self._there(VFIO_DRIVER):
            self.links[f"{device}/driver"] = "../../../../bus/pci/drivers/vfio-pci"
            group = self.links[f"{device}/iommu_group"].rpartition("/")[2]
            self.files[f"/dev/vfio/{group}"] = ""

    def _run(self, argv: list[str]) -> dict[str, Any]:
        status, said = self._program(argv)
        out, err = (said, "") if status == 0 else ("", said)
        return {"status": status, "stdout": out, "stderr": err, "seconds": 0.0}

    def _program(self, argv: Sequence[str]) -> tuple[int, str]:
        if argv[0] not in self.programs:
            return 127, f"{argv[0]}: not found"
        return self.programs[argv[0]](argv)

    def _ip(self, argv: Sequence[str]) -> tuple[int, str]:
        if argv[-1] == "show":
            return 0, json.dumps([*self.shown.values()])
        if "show" in argv:
            self._look_at_link()
            return 0, json.dumps([self.shown[argv[-1]]])
        assert argv[:4] == ["ip", "link", "set", "dev"], argv
        self.changes.append(" ".join(argv))
        link = self.shown[argv[4]]
        if argv[5] == "vf":
            number = self._set_vf_mac(int(argv[6]), argv[8])
            self._show_filters()
            return (2, f"RTNETLINK answers: {os.strerror(number)}\n") if number else (0, "")
        if argv[5] in ("up", "down"):
            flags = {"UP", "LOWER_UP"}
            link["flags"] = sorted({*link["flags"]} - flags | (flags if argv[5] == "up" else set()))
            link["operstate"] = argv[5].upper()
        return 0, ""

    def _look_at_link(self) -> None:
        if self._dark:
            self._dark -= 1
            if not self._dark:
                link = self.shown[INTERFACE]
                link["flags"] = sorted({*link["flags"], "LOWER_UP"})

    def _set_vf_mac(self, vf: int, mac: str) -> int:
        """ixgbe_ndo_set_vf_mac: the errno that it refuses with, or 0."""
        if vf not in self.records or int(mac[:2], 16) & 1:
            return errno.EINVAL
        if mac == NO_MAC:
            if self.records[vf] != NO_MAC:
                if vf not in self.entries:
                    return errno.ENOMEM  # ixgbe_del_mac_filter; the record stays
                self.entries.remove(vf)
                self.records[vf] = NO_MAC
            return 0
        self.entries.discard(vf)
        if len(self.entries) >= self.registers_left:
            self.records[vf] = NO_MAC  # ixgbe_set_vf_mac
            return errno.ENOMEM  # ixgbe_add_mac_filter
        self.entries.add(vf)
        self.records[vf] = mac
        return 0

    def _show_filters(self) -> None:
        """ixgbe_ndo_get_vf_config shows what is on record."""
        shown = [{"vf": vf, "address": mac} for vf, mac in self.records.items()]
        self.shown[INTERFACE]["vfinfo_list"] = shown


def made_up_host(machine: Machine, name: str = "alder", folder: str = "/run/vf-harness") -> Host:
    """Give the host whose agent is *machine*."""
    return Host(name, LocalTransport(name), machine, app="/none", folder=folder)


def _named(args: dict[str, Any]) -> dict[str, Any]:
    return {name: args[name] for name in ("what", "do", "undo")}


def _refused(path: str, number: int) -> AgentError:
    return AgentError(
        f"{path}: {errno.errorcode[number]}", because=os.strerror(number), fix="see the host"
    )
