"""Imports in harness/ point downwards only."""

import ast
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Lowest first: each part may import those before it.  analysis stands where it sees no host.
ORDER = (
    *("errors", "shipped", "waiting", "together", "clock", "uapi", "agent"),
    *("devices", "topology", "twin", "chip", "frames", "analysis"),
    *(
        "remote",
        "host",
        "mailbox",
        "guest",
        "traffic",
        "migration",
        "audit",
        "report",
        "run",
        "lab",
        "plugin",
        "cli",
    ),
)
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.glob("harness/**/*.py"))


def imports(module: Path) -> Iterator[str]:
    """Yield the full name of everything that *module* imports, inside functions too."""
    package = ".".join(module.with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def part(name: str) -> str:
    return name.split(".")[1]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_downwards(module: Path) -> None:
    """The order is design's: a scheme that is imported by a host can be tested by no one."""
    own = module.parts[1].removesuffix(".py")
    names = set(imports(module))
    above = {name for name in names if name.startswith("harness.") and own != "__init__"
             and part(name) != own and ORDER.index(part(name)) > ORDER.index(own)}  # fmt: skip
    assert above == set()
    outside = {name.split(".")[0] for name in names}
    if own in {"agent", "twin", "uapi"}:
        carried = {"uapi", own}
        assert outside - sys.stdlib_module_names <= {"harness"}, "hosts have the standard library"
        assert {part(name) for name in names if name.startswith("harness.")} <= carried
    assert "scapy" not in outside or own == "frames", "scapy is imported by frames.py alone"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_sleeping_is_left_to_waiting(module: Path) -> None:
    """A sleep elsewhere is a guess about time.

    Hosts have no ``harness.waiting``, so an agent program sleeps in loops of its own: it paces what
    it samples, or it waits until a deadline and then raises AgentError with what it saw last.
    """
    sleeps = "time.sleep" in imports(module) or any(
        isinstance(node, ast.Attribute) and ast.unparse(node).endswith("time.sleep")
        for node in ast.walk(ast.parse((ROOT / module).read_text()))
    )
    assert not sleeps or module.parts[1] in {"waiting.py", "agent"}
