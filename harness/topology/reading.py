"""From a file to a topology, or to one message that tells everything wrong with the file."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import UsageError
from harness.shipped import shipped
from harness.topology.checks import faults_across, faults_of_offers
from harness.topology.faults import Fault
from harness.topology.models import Topology
from harness.topology.places import Places
from harness.topology.values import NAMES

TOPOLOGIES = shipped("topologies")
"""Where topologies known by name are kept."""

_AT_LINE = re.compile(r"\s*\(at line (\d+), column \d+\)$")
_LONGEST_VALUE = 60


def find(name_or_path: str | Path, folder: Path = TOPOLOGIES) -> Path:
    """Find what ``--lab`` means: a path, or a file in *folder* named without its ``.toml``.

    Raises UsageError with the names there are.
    """
    given = Path(name_or_path)
    names = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    if str(name_or_path) in names:
        return names[str(name_or_path)]
    if _is_there(given):
        return given
    near = difflib.get_close_matches(given.name.removesuffix(".toml"), names, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(
        f"there is no lab called {str(name_or_path)!r}{guess}",
        because=f"it is neither a file nor a name in {_shown(folder)}",
        fix=f"name one of {', '.join(names) or '(none there)'}, or the path of a topology file",
    )


def load(path: Path) -> Topology:
    """Read the topology in the file at *path*, checked whole.

    Raises UsageError with every fault that was found, each with its line.
    """
    file = _shown(path)
    text = _text(path, file)
    raw = _toml(text, file)
    places = Places.of(file, text)
    version = raw.get("schema", 1)
    if isinstance(version, int) and version != 1:  # nothing else in it can be judged
        raise _refusal(places, [_fault("literal_error", ("schema",), version)])
    faults = faults_across(raw)
    try:
        topology = Topology.model_validate(raw, context=places)
    except ValidationError as error:
        faults += _faults_of_shape(error)
    else:
        faults += faults_of_offers(topology)
        if not faults:
            return topology
    raise _refusal(places, faults)


def schema() -> dict[str, Any]:
    """Give the JSON Schema of a topology file, for editors and for programs that write one."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Topology.model_json_schema(by_alias=True),
    }


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long, a folder that is closed to us: reading it says which
        return True


def _shown(path: Path) -> str:
    """Write the path as the reader would type it."""
    absolute, here = Path(path).absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)


def _text(path: Path, file: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = "it is a directory" if isinstance(error, IsADirectoryError) else error.strerror
        raise UsageError(
            f"{file}: cannot be read as a topology",
            because=f"{reason}",
            fix="name a file that you may read, such as topologies/emulated.toml",
        ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{file}:{line}: is not UTF-8",
            because=f"byte {content[error.start]:#04x} begins no character, and TOML is UTF-8",
            fix="save the file as UTF-8",
        ) from error


def _toml(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    # A number of thousands of digits is a ValueError, brackets in hundreds a RecursionError.
    except (ValueError, RecursionError) as error:
        message = str(error)
        at_line = _AT_LINE.search(message)
        line = int(at_line[1]) if at_line else len(text.splitlines())
        raise UsageError(
            f"{file}:{line}: is not TOML",
            because=message.lower() if at_line is None else _AT_LINE.sub("", message).lower(),
            fix='write each value as key = "text" or key = 1 below its [table]',
        ) from error


def _refusal(places: Places, faults: Iterable[Fault]) -> UsageError:
    ordered = sorted(faults, key=lambda fault: places.line(fault.key) or 0)
    listed = "".join(f"\n    {places.place(fault.key)}: {fault}" for fault in ordered)
    number = f"{len(ordered)} faults" if len(ordered) > 1 else "1 fault"
    return UsageError(
        f"{places.file}: {number} in this topology{listed}",
        because="a topology is checked whole before any host is touched",
        fix="correct these lines; topologies/README.md lists every key",
    )


def _faults_of_shape(error: ValidationError) -> list[Fault]:
    return [
        _fault(detail["type"], detail["loc"], detail["input"])
        for detail in error.errors(include_url=False, include_context=False)
    ]


def _fault(kind: str, key: tuple[str | int, ...], value: Any) -> Fault:
    """Put what pydantic found into our words; what was expected is the schema's description."""
    if key[-1] == "[key]":
        (pattern,) = _node(key[:-2])["patternProperties"]
        return Fault(key[:-1], "is no name here", NAMES[pattern])
    if kind == "extra_forbidden":
        known = sorted(_node(key[:-1]).get("properties", {}))
        near = difflib.get_close_matches(str(key[-1]), known, n=1)
        secret = "no password: use identity or ssh-agent; " if key[-1] == "password" else ""
        guess = f"{near[0]} perhaps, or another of " if near else "one of "
        return Fault(key, "is no key of this table", f"{secret}{guess}{', '.join(known)}")
    node = _node(key)
    if examples := node.get("examples"):
        expected = f"{node['description']}, such as {_written(examples[0])}"
    else:
        expected = f"table of the keys {', '.join(node['properties'])}"
    if kind == "missing":
        return Fault(key, "is missing", expected)
    words = [each for each in node.get("enum", ()) if isinstance(each, str)]
    if isinstance(value, str) and (near := difflib.get_close_matches(value, words)):
        expected += f" (did you mean {_written(near[0])}?)"
    return Fault(key, f"is {_written(value)}", expected)


def _node(key: tuple[str | int, ...]) -> dict[str, Any]:
    """Find the part of the JSON Schema that describes *key*."""
    whole = _whole()
    node = whole
    for part in key:
        if isinstance(part, int):
            node = node["items"]
        elif part in node.get("properties", {}):
            node = node["properties"][part]
        else:
            node = node.get("additionalProperties") or next(
                iter(node.get("patternProperties", {}).values())
            )
        node = _resolved(whole, node)
    return node


@cache
def _whole() -> dict[str, Any]:
    return schema()


def _resolved(whole: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Put into *node* what it refers to; what stands beside a reference wins."""
    for choice in node.get("anyOf", ()):
        if choice.get("type") != "null":
            node = {**choice, **node}
    if "$ref" in node:
        node = {**whole["$defs"][node["$ref"].rpartition("/")[2]], **node}
    return node


def _written(value: Any) -> str:
    """Write a value about as TOML would, cut where it grows too long for a message."""
    if isinstance(value, str) and value.startswith("["):
        return value  # the header of a table
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
