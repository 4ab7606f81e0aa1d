"""A guest reads and writes its VF's configuration space, as the VF's driver could."""

from __future__ import annotations

from harness.guest.machine import GuestMachine

DOWN_S = 120
"""How long the guest waits for an interface that is to go down."""

_ACCESS = """
import glob, os, sys, time
offset, count, data, waits = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
(device,) = glob.glob("/sys/bus/pci/drivers/*vf/0*")
config = os.open(device + "/config", os.O_RDWR)
def flags():
    seen = {}
    for path in glob.glob(device + "/net/*/flags"):
        with open(path) as file:
            seen[path] = int(file.read(), 16)
    return seen
end = time.monotonic() + float(waits[0]) if waits else 0
while waits and any(seen & 1 for seen in flags().values()):
    if time.monotonic() > end:
        sys.exit(f"after {waits[0]} s the VF's interface is still up: {flags()}")
    time.sleep(0.02)
if data:
    os.pwrite(config, bytes.fromhex(data), offset)
else:
    print(os.pread(config, count, offset).hex())
"""
_IN_BACKGROUND = '("$@" >/dev/kmsg 2>&1 <&- &)'
"""The command runs in the background and writes its errors to the guest's kernel log."""


def read_config(guest: GuestMachine, offset: int, count: int) -> bytes:
    """Read *count* bytes from *offset* on."""
    shown = guest.host.run("/usr/bin/python3", "-I", "-c", _ACCESS, str(offset), str(count), "")
    return bytes.fromhex(shown.stdout)


def write_config(guest: GuestMachine, offset: int, data: bytes) -> None:
    """Write *data* by one access, at least where they are 1, 2 or 4 bytes that are aligned."""
    guest.host.run("/usr/bin/python3", "-I", "-c", _ACCESS, str(offset), "0", data.hex())


def write_config_once_down(guest: GuestMachine, offset: int, data: bytes) -> None:
    """Write *data* as soon as the VF's interface is down, as a driver does that says "ready".

    Ref: the kernel patches of 2015 (RFC V2): "VF driver will put down nic before migration", and
    then writes VF_STATUS.
    """
    argv = ["/usr/bin/python3", "-I", "-c", _ACCESS, str(offset), "0", data.hex(), str(DOWN_S)]
    guest.host.run("sh", "-c", _IN_BACKGROUND, "sh", *argv)
