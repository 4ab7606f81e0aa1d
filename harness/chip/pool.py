"""A pool is what a port's switch gives frames to: a VF, or the port itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.chip.mailbox import VfEnd
from harness.uapi.ixgbe_pf import QUEUES, VF_QUEUES, Row
from harness.uapi.ixgbe_vf import PSRTYPE_RQPL_SHIFT

if TYPE_CHECKING:
    from harness.chip.physical_function import PhysicalFunction


class _AnyPool:
    """Every pool of *port* has the link of the port; see ``harness.twin.lender``."""

    has_late_replies = False

    def __init__(self, port: PhysicalFunction) -> None:
        self._port = port
        self.ring: Callable[[], None] = lambda: None
        self.psrtype = 0

    @property
    def fetches(self) -> bool:
        return self._port.path.fetches

    def links(self) -> int:
        return self._port.link.links()


class Pool(_AnyPool):
    """Pool *number* is the side of *port* that VF *number* talks to; see ``harness.twin.lender``.

    Ref: Linux, ixgbe_sriov.c, for what the port's driver does with a VF's registers.
    """

    def __init__(self, port: PhysicalFunction, number: int) -> None:
        super().__init__(port)
        self.number = number

    @property
    def mailbox(self) -> VfEnd:
        return self._port.mailboxes.ends[self.number]

    def vf_was_reset(self) -> None:
        """Set the VF's bit in VFLRE, and clear the VF's bits in VFRE and VFTE.

        The VF then neither receives nor sends until ixgbe_set_vf_rx_tx sets the bits in VFRE and
        VFTE again, in answer to the VF's message.  The VF's filters stay until the port's driver
        removes them (ixgbe_vf_reset_event).  Nothing happens if the VF is not enabled.
        """
        port = self._port
        if self.number < port.vfs_enabled:
            port.switch.disable(self.number)
            port.mailboxes.vf_was_reset(self.number)

    def tag(self, asked: int | None) -> int | None:
        return self._port.switch.tag(self.number, asked)

    def lets_out(self, source: bytes, vlan: int | None) -> bool:
        """Say whether a frame may leave; the port counts a spoofed one as well (SSVPC)."""
        port = self._port
        if not (port.is_transmitting and port.switch.sends(self.number)):
            return False
        if port.switch.lets_out(self.number, source, vlan):
            return True
        port.statistics.spoof_dropped(self.number)
        return False

    def choose_queue(self, hashed: int) -> int:
        """Return the VF's receive queue for a frame with this RSS hash.

        PSRTYPE.RQPL says how many bits of the entry of RETA choose the queue.  Ref: 82599
        datasheet, RSS with VMDq.
        """
        port = self._port
        entry = port.table_entry(hashed) & (1 << (self.psrtype >> PSRTYPE_RQPL_SHIFT)) - 1
        return entry % min(port.queues_per_pool, VF_QUEUES)


class OwnPool(_AnyPool):
    """The port has a pool of its own, which ixgbe places behind the pools of the VFs."""

    @property
    def mailbox(self) -> VfEnd:
        raise LookupError("a port has no mailbox of its own")

    def vf_was_reset(self) -> None:
        """Do nothing, since this pool is no VF's."""

    def tag(self, asked: int | None) -> int | None:
        switch = self._port.switch
        return switch.tag(switch.own_pool, asked) if switch.has_pools else asked

    def lets_out(self, source: bytes, vlan: int | None) -> bool:
        switch = self._port.switch
        if not self._port.is_transmitting:
            return False
        own = switch.own_pool
        return not switch.has_pools or (switch.sends(own) and switch.lets_out(own, source, vlan))

    def choose_queue(self, hashed: int) -> int:
        """Return the port's receive queue for a frame with this RSS hash.

        The entry of RETA is the queue; with pools, PSRTYPE.RQPL bits of the entry choose among the
        queues of the port's own pool.
        """
        port, switch = self._port, self._port.switch
        entry = port.table_entry(hashed)
        if not switch.has_pools:
            return entry
        own = switch.own_pool
        bits = port.registers.held(Row.PSRTYPE.at(own)) >> PSRTYPE_RQPL_SHIFT
        return (own * port.queues_per_pool + (entry & (1 << bits) - 1)) % QUEUES
