"""Topologies and suite stand beside the package in a source tree, and inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """Return where *folder* of the source tree is, such as ``topologies``.

    An installed wheel has a copy; `[tool.hatch.build.targets.wheel.force-include]` names those.
    """
    in_tree = _PACKAGE.parent / folder
    return in_tree if in_tree.is_dir() else _PACKAGE / "_shipped" / folder
