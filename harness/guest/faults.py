"""Faults that are put into a guest, for a test that sees them found."""

from __future__ import annotations

from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.guest.memory import PAGE, GuestMemory

# Its interfaces first become fewer, as the VF goes, and then as many as before.
_PANIC = """
echo %d > /proc/sys/kernel/panic
links() { ls /sys/class/net | wc -l; }
all=$(links)
(while [ $(links) -ge $all ]; do sleep 0.05; done
 %s
 echo c > /proc/sysrq-trigger) > /dev/null 2>&1 &
"""
_UNTIL_THE_NEXT = "while [ $(links) -lt $all ]; do sleep 0.05; done"
_PANIC_SOON = """
echo %d > /proc/sys/kernel/panic
(sleep 0.5; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 &
"""
_AT_ONCE, _NEVER = -1, 0
"""When it reboots after that.  Ref: Linux, kernel/panic.c, ``panic_timeout``."""


def panic_at_next_vf(guest: GuestMachine, *, ends: bool) -> None:
    """Let the guest's kernel panic as it finds the VF of its destination.

    It hangs there, or its QEMU *ends* with it: a guest is started with ``-no-reboot``.
    """
    reboots = _AT_ONCE if ends else _NEVER
    guest.host.run("sh", "-c", _PANIC % (reboots, _UNTIL_THE_NEXT))


def panic_without_vf(guest: GuestMachine) -> None:
    """Let the guest's kernel panic, and its QEMU end, as soon as its VF has gone: where it is."""
    guest.host.run("sh", "-c", _PANIC % (_AT_ONCE, ":"))


def panic(guest: GuestMachine) -> None:
    """Let the guest's kernel panic within a second, and its QEMU end."""
    guest.host.run("sh", "-c", _PANIC_SOON % _AT_ONCE)


def refuse_sleep(guest: GuestMachine) -> None:
    """Let nobody in the guest send it to sleep: the file by which that is asked is read-only."""
    power = "/sys/power"
    guest.host.run("mount", "-o", "bind", power, power)
    guest.host.run("mount", "-o", "remount,bind,ro", power)


def master_unowned(source: Instance, successor: Instance) -> None:
    """Set Bus Master Enable of the VF that the guest at *source* has let go."""
    del successor
    assert source.vf is not None, "a guest with a VF"
    source.vf.master_unowned()


def change_byte(instance: Instance, page_frame: int) -> None:
    """Change one byte of that page of the guest, in the memory of a process that stands still."""
    memory = GuestMemory.of(instance)
    at = str(memory.host_address(page_frame) + PAGE // 2)
    instance.host.run("python3", "-c", _CHANGE_BYTE, str(instance.pid), at, changes=True)


_CHANGE_BYTE = """
import os, sys
memory = os.open(f"/proc/{sys.argv[1]}/mem", os.O_RDWR)
at = int(sys.argv[2])
os.pwrite(memory, bytes([os.pread(memory, 1, at)[0] ^ 1]), at)
"""
