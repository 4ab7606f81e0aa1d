"""Throws messages at the vfio-user server until something gives.

``PYTHONPATH=tests/unit python -m twin_fuzz --messages 1000000`` says how many messages were sent,
how fast, and what they were answered with.  Most are nearly right: what is
quite wrong is refused at the first look, and never gets deep.
"""

from __future__ import annotations

import argparse
import errno
import random
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from twin_client import MEMORY_BYTES, Client, client, device, eventfds, memory, open_descriptors

from harness.twin.channel import ClientGone
from harness.twin.device import Device
from harness.uapi import vfio_user
from harness.uapi.ixgbe_vf import VENDOR
from harness.uapi.vfio_user import Command, Flag

RECONNECT_ONE_OF = 500
ODD = (0, 1, 2, 3, 4, 7, 8, 12, 16, 20, 0xFF, 0x1000, 0x2000, 0x4000, 0x7FFFFFFF, 0xFFFFFFFF)
LAYOUTS = {
    Command.VERSION: "<HH",
    Command.DMA_MAP: "<IIQQQ",
    Command.DMA_UNMAP: "<IIQQ",
    Command.DEVICE_GET_INFO: "<IIII",
    Command.DEVICE_GET_REGION_INFO: "<IIIIQQ",
    Command.DEVICE_GET_IRQ_INFO: "<IIII",
    Command.DEVICE_SET_IRQS: "<IIIII",
    Command.REGION_READ: "<QII",
    Command.REGION_WRITE: "<QII",
    Command.DEVICE_RESET: "<",
    Command.REGION_WRITE_MULTI: "<QQII8s",
}
COMMON = [
    Command.DMA_MAP, Command.DMA_UNMAP, Command.REGION_READ, Command.REGION_WRITE,
    Command.DEVICE_SET_IRQS,
]  # fmt: skip


@dataclass
class Fuzz:
    """One run; *answers* counts replies by errno name, ``done`` for none."""

    seed: int
    answers: Counter[str] = field(default_factory=Counter)
    connections: int = 0

    def run(self, messages: int) -> float:
        """Send so many and return how many a second.  Raises whatever the server let out."""
        chance = random.Random(self.seed)
        before, began = open_descriptors(), time.monotonic()
        with device() as vf, memory() as ram, eventfds(3) as interrupts:
            sent = 0
            while sent < messages:
                sent += self._connection(chance, vf, [ram, *interrupts], messages - sent)
            with client(vf) as healthy:
                assert healthy.config(0, 2) == VENDOR, "it serves nobody any more"
        assert open_descriptors() == before, "descriptors are left"
        return messages / (time.monotonic() - began)

    def _connection(
        self, chance: random.Random, vf: Device, descriptors: list[int], most: int
    ) -> int:
        """One client, until it or the server has enough; how many messages it sent."""
        self.connections += 1
        connected, sent = Client(vf), 0
        try:
            if chance.random() < 0.95:
                connected.negotiate()
            while sent < most:
                sent += 1
                self._message(chance, connected, descriptors)
                if chance.randrange(RECONNECT_ONE_OF) == 0:
                    break
        except ClientGone:
            self.answers["connection ended"] += 1
        finally:
            connected.close()
        return sent

    def _message(self, chance: random.Random, connected: Client, descriptors: list[int]) -> None:
        command: int = chance.choice(COMMON if chance.random() < 0.7 else list(LAYOUTS))
        payload = _payload(chance, command)
        number = chance.randrange(1 << 16)
        flags = chance.choice((0, 0, 0, 0, 0, 0, 0, 0, int(Flag.NO_REPLY), int(Flag.REPLY), 0x2F))
        if chance.random() < 0.02:
            command = chance.randrange(1 << 16)
        size = vfio_user.HEADER.size + len(payload)
        if chance.random() < 0.001:
            size = chance.choice((0, 15, size + 1, 1 << 30))
        head = vfio_user.HEADER.pack(number, command, size, flags, 0)
        passed = chance.choices(descriptors, k=chance.choice((0, 0, 0, 0, 1, 1, 1, 2, 3)))
        connected.send_raw(head + payload, passed)
        connected.channel.serve()
        self._count(connected)

    def _count(self, connected: Client) -> None:
        for error in connected.answers_waiting():
            self.answers[errno.errorcode.get(error, str(error)) if error else "done"] += 1


def _payload(chance: random.Random, command: int) -> bytes:
    """Of the right shape mostly, with numbers that are plausible, odd, or anything."""
    layout = LAYOUTS[Command(command)]
    values: list[object] = []
    for kind in layout[1:].replace("8s", "s"):
        if kind == "s":
            values.append(chance.randbytes(8))
            continue
        bits = {"H": 16, "I": 32, "Q": 64}[kind]
        value = chance.choice(ODD) if chance.random() < 0.8 else chance.getrandbits(bits)
        values.append(value & (1 << bits) - 1)
    if command in (Command.DMA_MAP, Command.DMA_UNMAP) and chance.random() < 0.7:
        page = 4096 * chance.randrange(MEMORY_BYTES // 4096)
        values[1:] = [3, 0, page, 4096] if command == Command.DMA_MAP else [0, page, 4096]
        values[0] = 32
    if command in (Command.REGION_READ, Command.REGION_WRITE) and chance.random() < 0.8:
        values[:] = [
            4 * chance.randrange(0x1100),
            chance.choice((0, 0, 3, 7)),
            chance.choice((4, 8)),
        ]
    payload = struct.pack(layout, *values)
    if command == Command.REGION_WRITE:
        payload += chance.randbytes(int(str(values[2])) if int(str(values[2])) < 64 else 8)
    if chance.random() < 0.05:
        payload = payload[: chance.randrange(len(payload) + 1)] + chance.randbytes(
            chance.randrange(9)
        )
    return payload


def main() -> int:
    """Run as a program; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    fuzz = Fuzz(options.seed)
    per_s = fuzz.run(options.messages)
    said = ", ".join(f"{count} {answer}" for answer, count in fuzz.answers.most_common())
    ran = f"{options.messages} messages, {per_s:.0f} a second, {fuzz.connections} connections"
    sys.stdout.write(f"{ran}; {said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
