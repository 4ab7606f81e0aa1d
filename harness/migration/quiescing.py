"""Stopping a VF's DMA: what a host can do, and what is asked inside the guest."""

from __future__ import annotations

from harness.errors import MigrationError
from harness.guest.instance import Instance
from harness.guest.machine import GuestMachine
from harness.guest.vf import GuestVf
from harness.host.twin import Twin
from harness.migration import pacing
from harness.migration.plan import Quiesce

ASLEEP_SECONDS = 30

_REFUSAL = "/run/asleep.log"
"""In the guest: why its kernel would not sleep, if so."""


def stop_dma(how: Quiesce, twin: Twin, guest: GuestMachine, source: Instance) -> None:
    """Return when the VF has stopped; QEMU, if it is copying, does not stop the guest meanwhile.

    Raises MigrationError for a guest that does not fall asleep, WaitError for a driver that does
    not stop its queues, and what a command inside the guest comes to.
    """
    if how is Quiesce.BME_CLEARED:
        twin.control.ask("set_bus_master", on=False)
    elif how is Quiesce.ACPI_SUSPEND:
        with pacing.held(source):
            fall_asleep(guest, source)
    elif how is not Quiesce.NOTHING:
        with pacing.held(source):
            _ask_driver(how, GuestVf.find(guest, source.spec.mac))
            twin.wait_until_quiet(ASLEEP_SECONDS)


def _ask_driver(how: Quiesce, vf: GuestVf) -> None:
    if how is Quiesce.LINK_DOWN:
        vf.set_link("down")
    elif how is Quiesce.UNBIND:
        vf.unbind()
    else:
        vf.suspend_devices()


def fall_asleep(guest: GuestMachine, source: Instance) -> None:
    """Suspend the guest to RAM.  Raises MigrationError, with what it says, if it stays awake."""
    since = len(source.qmp.events)
    guest.host.run("sh", "-c", _FALL_ASLEEP)
    try:
        source.qmp.wait_for(
            "the guest to fall asleep",
            lambda event: event.name == "SUSPEND",
            within=ASLEEP_SECONDS,
            since=since,
        )
    except MigrationError as awake:
        raise MigrationError(
            f"{source.host.name}: the guest did not fall asleep within {ASLEEP_SECONDS} s",
            because=f"it says: {guest.host.read_text(_REFUSAL).strip() or 'nothing'}",
            fix="see its console for a device that would not; the events were: " + awake.because,
        ) from None


_FALL_ASLEEP = (
    "lpc=/sys/bus/pci/devices/0000:00:1f.0/config; kept=/run/acpi-base; "
    "dd if=$lpc of=$kept bs=4 skip=16 count=2 2>&-; "
    "(sleep 0.2; echo mem > /sys/power/state; dd if=$kept of=$lpc bs=4 seek=16 2>&-) "
    f">&- 2> {_REFUSAL} <&- &"
)
"""Sleep, and put back where ACPI's registers are, which waking resets: a guest without them cannot
sleep a second time.  It sleeps a moment later: the answer to who asked is to be on its way by then,
which nobody inside can see.

Ref: waking resets the ICH9 with everything else (QEMU, hw/southbridge/ich9.h: ICH9_LPC_PMBASE and
ICH9_LPC_ACPI_CTRL, 40h and 44h), and SeaBIOS puts back only a PIIX4's (src/fw/pciinit.c,
pci_resume()).
"""
