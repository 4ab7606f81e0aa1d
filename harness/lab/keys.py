"""Keys of the lab: each machine's host key, the one key that logs in, and who is known by what.

They are made with the image, so both ends of every connection are known before the first one.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from harness.topology import GUEST_SSH_PORT

CLIENT = "client"
GUEST = "guest"


def make_keys(tree: Path, folder: Path, hosts: tuple[str, ...]) -> None:
    """Fill *folder* with a private and a ``.pub`` file for each host, the guest and the client.

    ``authorized_keys`` holds the client's.  The tree's own ssh-keygen makes them.
    """
    folder.mkdir(mode=0o700)
    with tempfile.TemporaryDirectory(dir=tree / "tmp") as made:
        inside = Path(made)
        for name in (*hosts, GUEST, CLIENT):
            subprocess.run(
                ["chroot", str(tree), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name,
                 "-f", f"/tmp/{inside.name}/{name}"],
                check=True,
            )  # fmt: skip
        for file in sorted(inside.iterdir()):
            file.rename(folder / file.name)
    (folder / "authorized_keys").write_text((folder / f"{CLIENT}.pub").read_text())
    (folder / "known_hosts").write_text(
        known_hosts(folder, {GUEST: f"[127.0.0.1]:{GUEST_SSH_PORT}"})
    )


def known_hosts(folder: Path, addresses: dict[str, str]) -> str:
    """The text of a known_hosts file; *addresses*: name to ``address`` or ``[address]:port``."""
    lines = []
    for name, address in addresses.items():
        kind, key, *_ = (folder / f"{name}.pub").read_text().split()
        lines.append(f"{address} {kind} {key}\n")
    return "".join(lines)
