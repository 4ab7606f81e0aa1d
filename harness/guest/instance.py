"""One QEMU process running a guest on one host. A migration yields another: its successor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from harness.errors import GuestError, MigrationError, RemoteError, WaitError
from harness.guest.command_line import SPARE, VF, command_line, vf_device
from harness.guest.qmp import QemuGoneError, Qmp
from harness.guest.spec import GuestImage, GuestSpec, Place
from harness.host.changes import changed_back
from harness.host.vf import Vf
from harness.remote import Host
from harness.waiting import wait_for

BOOT_SECONDS = 90
SILENT_SECONDS = 45
"""From the start of QEMU to the first word of the guest's init; some 6 s in an emulated host."""

START_SECONDS = 20
UNPLUG_SECONDS = 30
IMAGES = "/var/lib/vf-harness/images"
"""Where a host keeps kernel and initramfs of a guest, in a folder named by their digest."""


class Instance:
    """A guest's process on *host*, with its *vf* if it has one; *qmp* is open as long as this is.

    An instance answers for its own process only: after a migration the old one is ``postmigrate``
    and its successor runs.
    """

    def __init__(
        self,
        spec: GuestSpec,
        vf: Vf | None,
        place: Place,
        host: Host,
        pid: int,
        qmp: Qmp,
    ) -> None:
        self.spec = spec
        self.vf = vf
        self.place = place
        self.host = host
        self.pid = pid
        self.qmp = qmp

    @property
    def state(self) -> str:
        """QEMU's RunState: running, paused, inmigrate, postmigrate, ..."""
        return str(self.qmp.execute("query-status")["status"])

    @property
    def last_words(self) -> str:
        """The end of the guest's console, and where its first processor stands, in QEMU's words.

        ``HLT=1`` is one that waits for an interrupt.
        """
        try:
            console = f"its console ends: {_end_of(self.console(), 3)}"
        except RemoteError as silent:
            console = f"its console cannot be read: {silent.what}"
        return f"{console}; {self._standing()}"

    def _standing(self) -> str:
        try:
            said = self.qmp.execute("human-monitor-command", {"command-line": "info registers"})
        except QemuGoneError:
            return "its QEMU has ended: see qemu.log"
        except (RemoteError, MigrationError) as silent:
            return f"where its processor stands is not known: {silent.what}"
        lines = (line for line in str(said).splitlines() if "RIP=" in line or "EIP=" in line)
        return f"its processor stands at {next(lines, 'a place that QEMU does not tell')}"

    @property
    def huge_pages_kib(self) -> int:
        """How much of its process's memory lies in huge pages.  Ref: proc_pid_smaps(5)."""
        lines = self.host.read_text(f"/proc/{self.pid}/smaps_rollup").splitlines()
        return next(int(each.split()[1]) for each in lines if each.startswith("AnonHugePages:"))

    def console(self) -> str:
        """What the guest has printed so far on this host."""
        return self.host.fetch(f"{self.place.folder}/console.log").decode(errors="replace")

    def complaints(self) -> str:
        """What QEMU itself has printed so far: warnings, and why it ended if it did."""
        return self.host.fetch(f"{self.place.folder}/qemu.log").decode(errors="replace")

    def unplug(self) -> None:
        """Take the VF out, and return when the guest has let it go.

        Raises MigrationError if it does not.  Ref: QEMU, qapi/qdev.json, ``device_del``.
        """
        since = len(self.qmp.events)
        self.qmp.execute("device_del", {"id": VF})
        self.qmp.wait_for(
            "the guest to let its VF go",
            lambda event: event.name == "DEVICE_DELETED" and event.data.get("device") == VF,
            within=UNPLUG_SECONDS,
            since=since,
        )

    def plug(self) -> None:
        """Put the VF back where it was; its guest will find it there."""
        self.qmp.execute("device_add", vf_device(self.place))

    def plug_spare(self, vf: Vf) -> None:
        """Put another VF into the slot of a standby, which this guest has not."""
        self.qmp.execute("device_add", {**vf.device, "id": SPARE, "bus": "slot1"})

    def wait_until_up(self) -> None:
        """Return when the guest's init has said that it is up.

        Raises GuestError: sooner if firmware or kernel got stuck before its own programs ran, and
        at once if QEMU ends.  QEMU ends when the guest resets its machine.
        """
        self._wait_for_words("guest runs its init", SILENT_SECONDS)
        self._wait_for_words("guest is up", BOOT_SECONDS)

    def _wait_for_words(self, words: str, seconds: float) -> None:
        try:
            text = wait_for(
                f"the guest on {self.host.name} to say {words!r}",
                self.console,
                within=seconds,
                until=lambda text: words in text or self.qmp.ended,
                every_s=0.1,
            )
            if words in text:
                return
            what = f"the guest ended before it said {words!r}"
        except WaitError:
            what = f"the guest did not say {words!r} within {seconds} s"
        raise GuestError(
            f"{self.host.name}: {what}",
            because=self.last_words,
            fix=f"see the console and qemu.log in its folder on that host, {self.place.folder}",
        )


def _end_of(text: str, lines: int) -> str:
    return " | ".join(text.strip().splitlines()[-lines:]) or "with nothing"


@contextmanager
def instance(
    spec: GuestSpec, vf: Vf | None, place: Place, host: Host, log: Path
) -> Iterator[Instance]:
    """A QEMU process on *host*, ended on the way out; what is said over QMP is written to *log*.

    The process is in the host's journal before it runs.
    """
    with changed_back(host):
        argv = command_line(spec, place)
        socket_path = f"{place.folder}/qmp"
        if host.exists(socket_path):
            host.unlink(socket_path)  # a QEMU that was killed left it; nobody listens there
        process = host.spawn(argv, log=f"{place.folder}/qemu.log", what=f"guest {spec.name}")

        def look() -> str:
            if host.exists(socket_path):
                return "listening"
            return host.read_text(f"{place.folder}/qemu.log").strip()[-500:]

        try:
            wait_for(
                "QEMU to listen", look, within=START_SECONDS, until=lambda seen: seen == "listening"
            )
        except WaitError as late:
            raise GuestError(
                f"{host.name}: QEMU did not start the guest",
                because=late.because,
                fix="the command is in commands.log; run it by hand on that host",
            ) from None
        with closing(Qmp(f"{host.name}", host.socket_to(socket_path), log)) as qmp:
            yield Instance(spec, vf, place, host, process.pid, qmp)


def put_image(host: Host, image: GuestImage) -> tuple[str, str]:
    """Kernel and initramfs on *host*, sent if it has them not; their paths there."""
    folder = f"{IMAGES}/{image.digest}"
    paths = f"{folder}/vmlinuz", f"{folder}/initramfs"
    for path, source in zip(paths, (image.kernel, image.initramfs), strict=True):
        if not host.exists(path):
            host.run("mkdir", "-p", folder, changes=True)
            host.send(source, path)
    return paths
