"""Faults that are put into a guest, for a test that sees them found."""

from __future__ import annotations

from harness.guest.machine import GuestMachine

# Its interfaces first become fewer, as the VF goes, and then as many as before.
_PANIC_AT_NEXT_VF = """
echo %d > /proc/sys/kernel/panic
links() { ls /sys/class/net | wc -l; }
all=$(links)
(while [ $(links) -ge $all ]; do sleep 0.05; done
 while [ $(links) -lt $all ]; do sleep 0.05; done
 echo c > /proc/sysrq-trigger) > /dev/null 2>&1 &
"""


def panic_at_next_vf(guest: GuestMachine, *, ends: bool) -> None:
    """Let the guest's kernel panic as it finds the VF of its destination.

    It hangs there, or its QEMU *ends* with it: a guest is started with ``-no-reboot``.
    """
    seconds_to_reboot = -1 if ends else 0  # Linux, kernel/panic.c: at once, or never
    guest.host.run("sh", "-c", _PANIC_AT_NEXT_VF % seconds_to_reboot)
