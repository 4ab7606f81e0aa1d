"""``make demo`` shows a migration also where QEMU takes no software 82599."""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness.topology import TOPOLOGIES

ROOT = TOPOLOGIES.parent
FAILS = ("vfs = 8 #", 'vfs = 2\nchip_fails = ["dma", "qtest"] #')
OWN = ('name = "emulated"', 'name = "takes-no-chip"'), ("vfh-emulated-peer", "vfh-no-chip-peer")


def test_the_demo_goes_on_with_qemus_own_port(tmp_path: Path) -> None:
    """A newcomer whose distribution has a newer QEMU must not be left with nothing.

    The Makefile's own line runs, with a lab whose chip fails at both ways to place VFs.
    """
    text = (TOPOLOGIES / "emulated.toml").read_text()
    for old, new in (*OWN, FAILS):
        assert old in text
        text = text.replace(old, new, 1)
    lab = tmp_path / "takes-no-chip.toml"
    lab.write_text(text)
    shown = "tests/lab/test_instrument.py -k independent_capture"
    done = subprocess.run(
        ["make", "demo", f"DEMO={shown} --artifacts {tmp_path} --lab {lab}", "ORDERS=--version"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "use the lab with QEMU's own 82576 (--lab emulated-82576)" in done.stdout
    assert "1 passed" in done.stdout
    assert [path.name.endswith("emulated-82576") for path in tmp_path.glob("2*")].count(True) == 1
