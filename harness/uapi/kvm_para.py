"""<asm/kvm_para.h> of x86, v6.1: the model-specific registers by which a guest lends KVM memory."""

from __future__ import annotations

from enum import IntEnum

from harness.uapi.mirror import numbers


@numbers("asm/kvm_para.h", "MSR_KVM_{}")
class Msr(IntEnum):
    """Each holds an address in the guest's memory that KVM writes to, and whether it may."""

    WALL_CLOCK_NEW = 0x4B564D00
    """Without a flag; KVM writes there once, whenever it is written itself."""

    SYSTEM_TIME_NEW = 0x4B564D01
    ASYNC_PF_EN = 0x4B564D02
    STEAL_TIME = 0x4B564D03
    PV_EOI_EN = 0x4B564D04


@numbers("asm/kvm_para.h", "KVM_MSR_{}")
class MsrFlag(IntEnum):
    """In the others, below the address, which is aligned to 64 bytes or to 4."""

    ENABLED = 1
