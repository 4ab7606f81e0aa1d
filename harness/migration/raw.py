"""What was said during one migration, as it was said: what is left to read when it broke off."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import RemoteError
from harness.guest.instance import Instance
from harness.migration.outcome import Note
from harness.migration.watch import Seen


@dataclass(slots=True)
class Raw:
    """The texts of one migration, whatever became of it; `conduct` fills it.

    *seen* is what each machine recorded, *qmp_logs* what was said with the QEMU of each host,
    *qemu_logs* what that one complained of, *console* what the guest printed, on the source and
    then on the destination.  *notes* say how the memory of a guest compared that was lost.
    """

    seen: list[Seen] = field(default_factory=list)
    qmp_logs: dict[str, str] = field(default_factory=dict)
    qemu_logs: dict[str, str] = field(default_factory=dict)
    console: str = ""
    notes: tuple[Note, ...] = ()

    def take(self, *instances: Instance) -> None:
        """Fetch what each of *instances* has said so far; why not, if it cannot be had."""
        for each in instances:
            self.qmp_logs[each.host.name] = each.qmp.log_text()
            self.qemu_logs[each.host.name] = _or_why_not(each.complaints)
            self.console += _or_why_not(each.console)

    def write(self, folder: Path, suffix: str = "") -> list[Path]:
        """Write what there is to *folder*, a file a text; *suffix* makes their names others."""
        texts = {f"qmp-{host}{suffix}.jsonl": log for host, log in self.qmp_logs.items()}
        texts |= {f"qemu-{host}{suffix}.log": log for host, log in self.qemu_logs.items() if log}
        for seen in self.seen:
            if seen.kernel:  # it was watched, and may have had nothing to say
                texts[f"dmesg-{seen.machine}{suffix}.log"] = seen.kernel_log
        if self.qmp_logs:  # somebody was there to say something
            texts[f"console{suffix}.log"] = self.console
        if self.notes:
            lines = ({"name": note.name, **note.data, "text": note.text} for note in self.notes)
            texts[f"memory{suffix}.jsonl"] = "".join(f"{json.dumps(line)}\n" for line in lines)
        for name, text in texts.items():
            (folder / name).write_text(text)
        return [folder / name for name in texts]


def _or_why_not(read: Callable[[], str]) -> str:
    try:
        return read()
    except RemoteError as error:  # the host may be what broke off the migration
        return f"not to be had: {error.what}; {error.because}\n"
