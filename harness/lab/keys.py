"""An image has a host key for each machine, one client key that logs in, and known_hosts.

The keys are made with the image, so each end of a connection knows the other end's key beforehand.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness.lab.programs import output_of
from harness.topology import GUEST_SSH_PORT

CLIENT = "client"
GUEST = "guest"


def make_keys(tree: Path, folder: Path, hosts: tuple[str, ...]) -> None:
    """Make *folder*, with a private and a ``.pub`` file for each host, the guest and the client.

    ``authorized_keys`` has the client's public key, and ``known_hosts`` the guest's host key.  The
    ssh-keygen of *tree* makes the keys.
    """
    folder.mkdir(mode=0o700)
    with tempfile.TemporaryDirectory(dir=tree / "tmp") as made:
        inside = Path(made)
        for name in (*hosts, GUEST, CLIENT):
            output_of(
                "chroot", str(tree), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name,
                "-f", f"/tmp/{inside.name}/{name}", means="the lab's keys could not be made",
            )  # fmt: skip
        for file in sorted(inside.iterdir()):
            file.rename(folder / file.name)
    (folder / "authorized_keys").write_text((folder / f"{CLIENT}.pub").read_text())
    (folder / "known_hosts").write_text(
        known_hosts(folder, {GUEST: f"[127.0.0.1]:{GUEST_SSH_PORT}"})
    )


def known_hosts(folder: Path, addresses: dict[str, str]) -> str:
    """Return the text of a known_hosts file with the public keys in *folder*.

    *addresses* gives the address of each name: ``address``, or ``[address]:port`` with a TCP port.
    """
    lines = []
    for name, address in addresses.items():
        kind, key, *_ = (folder / f"{name}.pub").read_text().split()
        lines.append(f"{address} {kind} {key}\n")
    return "".join(lines)
