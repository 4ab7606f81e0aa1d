"""The program runs one chip until SIGTERM ends the program."""

from __future__ import annotations

import argparse
import resource
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from harness.chip.configuration import Disguise
from harness.chip.loop import Chip
from harness.chip.placing import ByDma, ByQtest, Nowhere, Placing
from harness.twin.say import say, speak_as
from harness.twin.tap import Tap


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chip", description=__doc__)
    parser.add_argument("--name", default="", help="name by which others find this process")
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder in which the chip makes its sockets"
    )
    parser.add_argument(
        "--tap", type=int, action="append", required=True, metavar="DESCRIPTOR",
        help="inherited descriptor of a tap, which is the wire of a port; one option for each port",
    )  # fmt: skip
    parser.add_argument("--vfs", type=int, default=8, help="VFs of each port, 63 at most")
    parser.add_argument("--mac", type=_mac, required=True, help="address of the first port")
    parser.add_argument("--bus", type=int, default=1, help="PCI bus of the chip in its machine")
    parser.add_argument(
        "--disguise", type=Disguise, default=Disguise.IN_WHOLE_READS,
        help="when a port hides SR-IOV: in-whole-reads, until-reset, or never, which is a fault",
    )  # fmt: skip
    parser.add_argument(
        "--placing", default="dma",
        help="how the chip tells QEMU where VFs are: dma, the path of QEMU's test socket (-qtest), "
        "or nowhere, which is a fault",
    )  # fmt: skip
    parser.add_argument("--dma-logs", type=Path, help="folder for the DMA log of each VF")
    return parser.parse_args(arguments)


def _placing(way: str) -> Placing:
    if way == "nowhere":
        return Nowhere()
    return ByDma() if way == "dma" else ByQtest(Path(way))


def _mac(text: str) -> bytes:
    address = bytes.fromhex(text.replace(":", ""))
    if len(address) != 6:
        raise argparse.ArgumentTypeError(f"{text!r} is no MAC address")
    return address


def main() -> int:
    """Run one chip until SIGTERM; return 0, or 1 if the chip cannot start."""
    speak_as("chip")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # 126 VFs need a thousand eventfds
    options = _options(sys.argv[1:])
    with ExitStack() as stack:
        try:
            taps = [Tap(descriptor) for descriptor in options.tap]
            chip = Chip(
                options.folder, taps, vfs=options.vfs, mac=options.mac, bus=options.bus,
                logs=options.dma_logs, disguise=options.disguise,
                placing=_placing(options.placing), stack=stack,
            )  # fmt: skip
        except OSError as missing:
            say(f"the chip cannot start: {missing}")
            return 1
        signal.signal(signal.SIGTERM, chip.end)
        chip.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
