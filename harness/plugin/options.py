"""The options that our users know, each with an environment variable, and what they come to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from harness.errors import UsageError
from harness.migration.schemes import SCHEMES
from harness.topology import DebianKernel, Topology, find, load

ENVIRONMENT = "VF_HARNESS_"
TRUE = ("1", "yes", "true", "on")
FALSE = ("", "0", "no", "false", "off")

MARKERS = {
    **{name: f"scheme: {says}" for name, says in SCHEMES.items()},
    "bme": "subject: Bus Master Enable",
    "dma": "subject: what the device wrote, and when",
    "jumbo": "subject: frames above 1514 bytes",
    "downtime": "subject: how long users are cut off",
    "faults": "subject: something breaks on purpose",
    "smoke": "length: the few that show that a lab works",
    "nightly": "length: minutes each",
    "about(subject)": "what a test is about, in plain words, for a lab that cannot run it",
    "needs(word, ...)": "what the lab must offer, such as two-hosts, sriov, 82599; else skipped",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the options of this run say."""

    topology: Topology
    artifacts: Path
    keep_on_failure: bool
    require_all: bool
    dry_run: bool
    iterations: int


SETTINGS = pytest.StashKey[Settings]()


def add_options(parser: pytest.Parser) -> None:
    """Add the group of options; an environment variable is the default of each."""
    group = parser.getgroup("vf-harness", "VF migration harness")
    add = group.addoption
    add("--lab", metavar="FILE|NAME", default=_environment("LAB", "emulated"),
        help="topology of the lab: a file, or the name of one in topologies/ (default: emulated; "
        "VF_HARNESS_LAB)")  # fmt: skip
    add("--guest-kernel", metavar="KERNEL", default=_environment("GUEST_KERNEL", ""),
        help="which of Debian's kernels guests boot, stable or backports (default: what the "
        "topology says; VF_HARNESS_GUEST_KERNEL)")  # fmt: skip
    add("--host-kernel", metavar="KERNEL", default=_environment("HOST_KERNEL", ""),
        help="which of Debian's kernels emulated hosts boot, stable or backports (default: what "
        "the topology says; VF_HARNESS_HOST_KERNEL)")  # fmt: skip
    add("--artifacts", metavar="DIR", default=_environment("ARTIFACTS", "reports"),
        help="where each run leaves its folder (default: reports; "
        "VF_HARNESS_ARTIFACTS)")  # fmt: skip
    add("--keep-on-failure", action="store_true",
        help="end the run with the first test of the lab that fails, leave lab and guest as they "
        "are until the lease ends, and print how to log in "
        "(VF_HARNESS_KEEP_ON_FAILURE=1)")  # fmt: skip
    add("--require-all", action="store_true",
        help="what a test needs and the lab has not is an error, not a skip; for the lab's own CI "
        "(VF_HARNESS_REQUIRE_ALL=1)")  # fmt: skip
    add("--dry-run", action="store_true",
        help="print what would be changed on which host, and stop "
        "(VF_HARNESS_DRY_RUN=1)")  # fmt: skip
    add("--iterations", metavar="N", default=_environment("ITERATIONS", "1"),
        help="run each test of the lab N times (default: 1; VF_HARNESS_ITERATIONS)")  # fmt: skip


def read_settings(config: pytest.Config) -> Settings:
    """The settings of this run; reads the topology's file and nothing else.

    Raises UsageError.
    """
    return Settings(
        topology=_topology(config),
        artifacts=Path(config.getoption("--artifacts")),
        keep_on_failure=_switch(config, "--keep-on-failure"),
        require_all=_switch(config, "--require-all"),
        dry_run=_switch(config, "--dry-run"),
        iterations=_iterations(config.getoption("--iterations")),
    )


def _topology(config: pytest.Config) -> Topology:
    topology = load(find(config.getoption("--lab")))
    changed: dict[str, Any] = {}
    if kernel := _kernel(config, "--guest-kernel", "a guest"):
        changed["guest"] = topology.guest.model_copy(update={"kernel": kernel})
    if kernel := _kernel(config, "--host-kernel", "a host"):
        if topology.emulation is None:
            raise UsageError(
                f"--host-kernel {kernel}: the harness did not make the hosts of {topology.name!r}",
                because="this option, or VF_HARNESS_HOST_KERNEL, is for emulated hosts only",
                fix="leave it out, or name an emulated lab",
            )
        emulation = topology.emulation.model_copy(update={"host_kernel": kernel})
        changed["emulation"] = emulation
    return topology.model_copy(update=changed)


def _kernel(config: pytest.Config, option: str, who: str) -> str:
    """The kernel that an option names, or ``""``."""
    kernel = str(config.getoption(option))
    if kernel and kernel not in get_args(DebianKernel):
        variable = option.removeprefix("--").replace("-", "_").upper()
        raise UsageError(
            f"{option} {kernel}: no kernel that {who} can boot",
            because=f"it says which of Debian's kernels; VF_HARNESS_{variable}, too",
            fix=f"give one of {', '.join(get_args(DebianKernel))}",
        )
    return kernel


def _iterations(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise UsageError(
            f"--iterations {text}: no number of times that a test can run",
            because="it says how often each test of the lab runs; VF_HARNESS_ITERATIONS, too",
            fix="give a whole number from 1 on",
        )
    return number


def _switch(config: pytest.Config, option: str) -> bool:
    """Whether an option without a value is given, or else its environment variable says yes."""
    variable = option.removeprefix("--").replace("-", "_").upper()
    word = _environment(variable, "").lower()
    if word not in (*TRUE, *FALSE):
        raise UsageError(
            f"{ENVIRONMENT}{variable}={word}: neither yes nor no",
            because=f"it stands for {option}, which a typing error must not turn off",
            fix=f"set it to one of {', '.join(TRUE)}, or unset it",
        )
    return word in TRUE or bool(config.getoption(option))


def is_set(name: str) -> bool:
    """Say whether the environment variable of option *name* has a value."""
    return bool(_environment(name, ""))


def _environment(name: str, default: str) -> str:
    return os.environ.get(ENVIRONMENT + name) or default
