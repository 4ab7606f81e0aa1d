"""A port moves a frame from the wire to its pools, and from a pool to others and the wire.

The switch says which pools a frame goes to.  A pool belongs to the VF of the same number, or to the
port itself.  Ref: 82599 datasheet, "Virtualization", packet switching.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.twin.transmit import Part
from harness.uapi.ixgbe_pf import HLREG0_LPBK, RXCTRL_RXEN, Register

if TYPE_CHECKING:
    from harness.chip.physical_function import PhysicalFunction


class DataPath:
    """The data path takes frames of *port* from the wire and from its pools to where they belong.

    *to_wire* puts a frame, given in parts, onto the wire, and says whether the wire took the frame.
    """

    def __init__(self, port: PhysicalFunction, to_wire: Callable[[list[Part]], bool]) -> None:
        self._port = port
        self._to_wire = to_wire
        self._touched: set[int] = set()  # these VFs got frames that their drivers do not know of

    def receive(self, frame: memoryview) -> None:
        """Take a frame, without its checksum, from the wire; deliver the frame or count its drop.

        MAC loopback drops every frame from the wire: ixgbe_clean_test_rings stops counting at the
        first frame that is not the test's own.
        """
        if self._is_looped_back:
            self._port.statistics.drop("loopback")
        elif not self._port.link.is_up:
            self._port.statistics.drop("link")
        else:
            self._deliver(frame)

    def settle(self) -> None:
        """Interrupt the driver of each queue that got frames."""
        self._port.receiver.settle()
        while self._touched:
            self._port.vfs[self._touched.pop()].receiver.settle()

    def sender_of(self, pool: int) -> Callable[[list[Part]], bool]:
        """Return a function that does for VF *pool* what `send_own` does for the port."""
        return lambda parts: self._send(parts, pool)

    def send_own(self, parts: list[Part]) -> bool:
        """Send a frame, given in parts, of the port's own pool.

        Return False if the frame was for the wire, and the wire did not take the frame; else True.
        """
        return self._send(parts, self._port.switch.own_pool)

    @property
    def fetches(self) -> bool:
        """Say whether the port reads descriptors of transmit queues, its own and those of VFs.

        The port does so while the link is up, or while the MAC is looped back.  Ref: Linux,
        ixgbe_watchdog_flush_tx, "We've lost link, so the controller stops DMA".
        """
        return self._port.link.is_up or self._is_looped_back

    @property
    def _is_looped_back(self) -> bool:
        """Say whether the MAC receives the frames that the MAC sends, and nothing from the wire."""
        return bool(self._port.registers.held(Register.HLREG0) & HLREG0_LPBK)

    @property
    def _is_receiving(self) -> bool:
        return bool(self._port.registers.held(Register.RXCTRL) & RXCTRL_RXEN)

    def _deliver(self, frame: memoryview) -> None:
        """Filter a frame at the port's MAC, count the frame, and give the frame to its pools."""
        port = self._port
        switch, statistics = port.switch, port.statistics
        if not self._is_receiving:
            statistics.drop("receive")
            return
        pools = switch.pools_for(frame) if switch.has_pools else int(switch.passes(frame))
        if not pools:
            statistics.drop(switch.cause(frame))
        elif switch.is_too_long(frame):
            statistics.oversized(frame)
        else:
            statistics.received(frame)
            if switch.has_pools:
                self._give(pools, frame)
            else:
                port.receiver.take(frame)

    def _give(self, pools: int, frame: memoryview) -> None:
        port = self._port
        own = port.switch.own_pool
        while pools:
            bit = pools & -pools
            pools ^= bit
            pool = bit.bit_length() - 1
            if pool < port.vfs_enabled:
                port.vfs[pool].receiver.take(frame)
                self._touched.add(pool)
            elif pool == own:
                port.receiver.take(frame)

    def _send(self, parts: list[Part], pool: int) -> bool:
        port = self._port
        port.statistics.fetched()
        if self._is_looped_back:  # with the link up or down
            self._deliver(memoryview(b"".join(parts)))
            return True
        pools, to_wire = 0, True
        if port.switch.has_pools:
            frame = memoryview(b"".join(parts))
            pools, to_wire = port.switch.pools_from(frame, pool)
            parts = [frame]
            if pools and self._is_receiving:
                self._give(pools, frame)
        if not to_wire:
            return True
        if not self._to_wire(parts):
            return False
        port.statistics.sent(bytes(parts[0][:6]), sum(map(len, parts)))
        return True
