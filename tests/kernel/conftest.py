"""The source of the kernel whose drivers are modelled, as Debian ships it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness.lab.tree import Recipe, tree

PACKAGE = "linux-source-6.12"
DRIVERS = "drivers/net/ethernet/intel"


@pytest.fixture(scope="session")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of Intel's network drivers.

    VF_HARNESS_KERNEL_SOURCE names a kernel's source that is there already; without it Debian's
    package is fetched, which is 150 MB.
    """
    if named := os.environ.get("VF_HARNESS_KERNEL_SOURCE"):
        return Path(named, DRIVERS)
    archive = tree(Recipe((PACKAGE,)), "the source of the kernel", print)
    (packed,) = (archive / "usr/src").glob("linux-source-*.tar.xz")
    folder = tmp_path_factory.mktemp("kernel")
    subprocess.run(
        ["tar", "-C", folder, "--strip-components=1", "-xJf", packed, "--wildcards",
         f"*/{DRIVERS}/ixgbe/*", f"*/{DRIVERS}/ixgbevf/*"], check=True,
    )  # fmt: skip
    return folder / DRIVERS
