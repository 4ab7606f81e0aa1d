"""<asm-generic/ioctl.h>: how ioctl numbers are made; and how Python is tied to a C declaration.

A structure that mirrors a C one is checked in two places.  Its size is checked here, at import.
The offset and size of every field are measured with a C compiler in the tests, since the size
alone can be right (padding) where a field is wrong.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Callable, TypeVar

S = TypeVar("S", bound=ctypes.Structure)
N = TypeVar("N", bound=Enum)


@dataclass(frozen=True)
class Mirror:
    """A ctypes structure and the C declaration it stands for."""

    header: str
    tag: str
    structure: type[ctypes.Structure]

    def layout(self) -> dict[str, tuple[int, int]]:
        """Name -> (offset, size) of each field, in bytes; the whole structure is ``""``."""
        layout = {"": (0, ctypes.sizeof(self.structure))}
        for name, *_ in self.structure._fields_:
            field = getattr(self.structure, name)
            layout[name] = (field.offset, field.size)
        return layout


@dataclass(frozen=True)
class Numbers:
    """An enumeration and how the C names of its members are spelt.

    *newer* has those members that not every header in use has, and the macro that tells of each.
    """

    header: str
    pattern: str
    enumeration: type[Enum]
    newer: Mapping[str, str] = field(default_factory=dict)

    def values(self) -> dict[str, int]:
        """C name -> value."""
        members = self.enumeration.__members__.items()
        return {self.pattern.format(name): member.value for name, member in members}

    def macros(self) -> dict[str, str]:
        """C name -> the macro that a header defines if it has that name; the others are in all."""
        return {self.pattern.format(name): macro for name, macro in self.newer.items()}


MIRRORS: list[Mirror] = []
NUMBERS: list[Numbers] = []


def mirrors(header: str, tag: str, *, size: int) -> Callable[[type[S]], type[S]]:
    """Say which C type a structure stands for, e.g. ``"struct vfio_region_info"``, 32 bytes.

    A flexible array at the C structure's end is left out of the fields.  Raises TypeError, and so
    fails the import, if the structure is not *size* bytes long.
    """

    def register(structure: type[S]) -> type[S]:
        actual = ctypes.sizeof(structure)
        if actual != size:
            raise TypeError(f"{structure.__name__} has {actual} bytes, <{header}> {tag} has {size}")
        MIRRORS.append(Mirror(header, tag, structure))
        return structure

    return register


def numbers(
    header: str, pattern: str, *, newer: Mapping[str, str] | None = None
) -> Callable[[type[N]], type[N]]:
    """Say how C spells an enumeration's members: ``"VFIO_{}"`` makes VFIO_DEVICE_RESET of one.

    *newer* names members that came to the header later, each with a macro that came with it.
    """

    def register(enumeration: type[N]) -> type[N]:
        NUMBERS.append(Numbers(header, pattern, enumeration, newer or {}))
        return enumeration

    return register


def io(kind: str, number: int) -> int:
    """Compute ``_IO(kind, number)``: an ioctl whose number holds neither direction nor size."""
    return ord(kind) << 8 | number


def iow(kind: str, number: int, size: int) -> int:
    """Compute ``_IOW(kind, number, type)``: its number says that the kernel reads *size* bytes."""
    return 1 << 30 | size << 16 | io(kind, number)
