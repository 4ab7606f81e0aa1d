"""A port has a link while its cable is in, its laser is on, and training is over.

Ref: Linux, ixgbe_82599.c: ixgbe_setup_mac_link_82599, ixgbe_reset_pipeline_82599,
ixgbe_disable_tx_laser_multispeed_fiber; ixgbe_common.c: ixgbe_check_mac_link_generic.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.chip.registers import Registers
from harness.uapi.ixgbe_pf import Links, Register
from harness.uapi.ixgbe_vf import LINK_OF_MBIT

TRAINING_SECONDS = 0.1
"""Training of the link takes this long; silicon takes seconds, which tests would only wait for."""

_LMS_10G_SERIAL = 3 << 13  # IXGBE_AUTOC_LMS_10G_SERIAL
_SERIAL_SFI = 2 << 16  # IXGBE_AUTOC2_10G_SFI
_AN_RESTART = 0x1000  # IXGBE_AUTOC_AN_RESTART, clears itself
_AN_STATE_IDLE = 0xF0000  # IXGBE_ANLP1_AN_STATE_MASK: what the driver waits for
_MODULE_PRESENT = 0x4  # IXGBE_ESDP_SDP2
_LASER_OFF = 0x8  # IXGBE_ESDP_SDP3


class Link:
    """The link answers for LINKS, AUTOC and ESDP; going up or down, the link calls *changed*."""

    def __init__(self, registers: Registers, changed: Callable[[], None]) -> None:
        self._registers = registers
        self._changed = changed
        self._cable, self.mbit = True, 10_000
        self._trained_ns = 0
        self._shown = True
        registers.default(Register.AUTOC, _LMS_10G_SERIAL)
        registers.default(Register.AUTOC2, _SERIAL_SFI)
        registers.default(Register.ANLP1, _AN_STATE_IDLE)
        registers.default(Register.ESDP, _MODULE_PRESENT)
        registers.claim(Register.AUTOC, write=self._configure)
        registers.claim(Register.ESDP, write=self._drive)
        registers.claim(Register.LINKS, self.links)

    @property
    def is_up(self) -> bool:
        """Say whether the cable is in, the laser is on, and training is over."""
        return self._has_light and time.monotonic_ns() >= self._trained_ns

    def links(self) -> int:
        """Return the value of the port's LINKS, and of VFLINKS of every VF."""
        return Links.UP | LINK_OF_MBIT[self.mbit] if self.is_up else 0

    def plug(self, cable: bool, mbit: int, *, trained: bool = False) -> None:
        """Plug the cable in (*cable*) or pull the cable; *mbit* is the link's speed in Mbit/s.

        The link trains, unless *trained* is set.  Raises ValueError for a speed that no 82599 has.
        """
        if mbit not in LINK_OF_MBIT:
            raise ValueError(f"an 82599 has no link of {mbit} Mbit/s")
        self._cable, self.mbit = cable, mbit
        self.train(0.0 if trained else TRAINING_SECONDS)

    def train(self, seconds: float = TRAINING_SECONDS) -> None:
        """Train the link for this many *seconds*; the link is down until training is over."""
        self._trained_ns = time.monotonic_ns() + int(seconds * 1e9)
        self.settle()

    def settle(self) -> float:
        """Call *changed* if the link went up or down since the last call.

        Return in how many seconds training is over, 0 if the link does not train.
        """
        now = self.is_up
        if now != self._shown:
            self._shown = now
            self._changed()
        if now or not self._has_light:
            return 0.0
        return max(1e-3, (self._trained_ns - time.monotonic_ns()) / 1e9)

    @property
    def _has_light(self) -> bool:
        return self._cable and not self._registers.held(Register.ESDP) & _LASER_OFF

    def _configure(self, value: int) -> None:
        self._registers.hold(Register.AUTOC, value & ~_AN_RESTART)
        if value & _AN_RESTART:
            self.train()

    def _drive(self, value: int) -> None:
        was = self._registers.held(Register.ESDP) & _LASER_OFF
        self._registers.hold(Register.ESDP, value | _MODULE_PRESENT)
        if value & _LASER_OFF != was:
            self.train()
