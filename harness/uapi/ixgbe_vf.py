"""The registers of an Intel 82599 VF, its descriptors, and what it says to its port's driver.

Ref: Linux 6.12, drivers/net/ethernet/intel/ixgbevf: regs.h, mbx.h, defines.h, vf.h; and for the
port's side ../ixgbe: ixgbe_mbx.h, ixgbe_sriov.h.  Offsets are in bytes from the start of BAR 0;
registers have 32 bits.  Behaviour that no header tells (read to clear, automatic masking) is the
82599 datasheet's, as those drivers rely on it.

Bits are members of an IntEnum, which combine as plain numbers: a twin does that several times for
each frame, and an IntFlag's own arithmetic is many times as slow.
"""

from __future__ import annotations

import struct
from enum import IntEnum

VENDOR, DEVICE = 0x8086, 0x10ED  # IXGBE_DEV_ID_82599_VF
BAR_BYTES = 16 << 10
VECTORS = 3
"""MSI-X vectors of a VF: two for queues, one for the mailbox."""

MSIX, EXPRESS = 0x70, 0xA0
"""Where its two capabilities are in configuration space."""

FREE = (range(0x40, MSIX), range(MSIX + 12, EXPRESS))
"""Where that has room for another one: after its header, and after MSI-X."""

QUEUES = 2
"""Ixgbevf uses at most so many queues of those that the port lends; IXGBEVF_MAX_RSS_QUEUES."""

MOST_QUEUES = 4
"""Queues of a VF where the port has 32 pools at most; ixgbe_set_sriov_queues."""

MAX_FRAME_BYTES = 9728
"""IXGBE_MAX_JUMBO_FRAME_SIZE, the frame's checksum counted."""

CHECKSUM_BYTES = 4
"""Of a frame on the wire; neither side of a tap ever sees it."""

TAG_BYTES = 4
"""Of a VLAN tag, by which a frame may be longer than any limit; 82599 datasheet, MAXFRS."""


class Register(IntEnum):
    """``IXGBE_*`` of regs.h and mbx.h; those of a queue, or in rows, are named further down."""

    VFCTRL = 0x0000
    VFSTATUS = 0x0008
    VFLINKS = 0x0010
    VFFRTIMER = 0x0048
    VTEICR = 0x0100
    VTEICS = 0x0104
    VTEIMS = 0x0108
    VTEIMC = 0x010C
    VTEIAC = 0x0110
    VTEIAM = 0x0114
    VTIVAR = 0x0120
    """One of QUEUES / 2: a byte each for receive and transmit of two queues."""
    VTIVAR_MISC = 0x0140
    VFMBMEM = 0x0200
    VFMAILBOX = 0x02FC
    VFPSRTYPE = 0x0300
    VTEITR = 0x0820
    """One of VECTORS, four bytes apart."""
    VFGPRC = 0x101C
    VFGPTC = 0x201C
    VFGORC_LSB = 0x1020
    VFGORC_MSB = 0x1024
    VFGOTC_LSB = 0x2020
    VFGOTC_MSB = 0x2024
    VFMPRC = 0x1034


RECEIVE, TRANSMIT = 0x1000, 0x2000
"""Where the registers of receive and transmit queue 0 begin."""

QUEUE_BYTES = 0x40
"""From a queue's registers to the next one's."""


class QueueRegister(IntEnum):
    """Offsets within a queue's registers; the same for both directions but for SRRCTL."""

    BAL = 0x00
    BAH = 0x04
    LEN = 0x08
    DCA = 0x0C
    HEAD = 0x10
    SRRCTL = 0x14
    """Receive only."""
    TAIL = 0x18
    DCTL = 0x28
    WBAL = 0x38
    """Transmit only, as WBAH: where the head is written back to, if bit 0 is set."""
    WBAH = 0x3C


class VfControl(IntEnum):
    """Bits of VFCTRL."""

    RST = 0x04000000


class Link(IntEnum):
    """Bits of VFLINKS: up, and two for the speed."""

    UP = 0x40000000
    SPEED_10G = 0x30000000
    SPEED_1G = 0x20000000
    SPEED_100M = 0x10000000


LINK_OF_MBIT = {100: Link.SPEED_100M, 1000: Link.SPEED_1G, 10_000: Link.SPEED_10G}


class QueueControl(IntEnum):
    """Bits of RXDCTL and TXDCTL."""

    SWFLSH = 0x04000000
    ENABLE = 0x02000000
    VME = 0x40000000
    """Receive: take the VLAN tag out of the frame and into the descriptor."""


SRRCTL_BSIZEPKT_MASK, SRRCTL_BSIZEPKT_SHIFT = 0x7F, 10
"""Size of a receive buffer, in KiB."""

PSRTYPE_RQPL_SHIFT = 29
"""VFPSRTYPE has, from this bit on, the binary logarithm of the queues that frames spread over."""

IVAR_VALID, IVAR_VECTOR = 0x80, 0x7F
EITR_INTERVAL_MASK = 0xFF8
"""Bits 11 to 3 of VTEITR: 2 microseconds each between two interrupts, in steps of 8 / 4."""
EITR_NS = 250
"""What one unit of the masked value stands for: 2 microseconds are 8 of them."""


class Mailbox(IntEnum):
    """Bits of VFMAILBOX."""

    REQ = 0x01
    ACK = 0x02
    VFU = 0x04
    PFU = 0x08
    PFSTS = 0x10
    PFACK = 0x20
    RSTI = 0x40
    RSTD = 0x80


READ_TO_CLEAR = Mailbox.PFSTS | Mailbox.PFACK | Mailbox.RSTD
MAILBOX_WORDS = 16


class Message(IntEnum):
    """The low 16 bits of a message's first word."""

    RESET = 0x01
    SET_MAC_ADDR = 0x02
    SET_MULTICAST = 0x03
    SET_VLAN = 0x04
    SET_LPE = 0x05
    SET_MACVLAN = 0x06
    API_NEGOTIATE = 0x08
    GET_QUEUES = 0x09
    GET_RETA = 0x0A
    GET_RSS_KEY = 0x0B
    UPDATE_XCAST_MODE = 0x0C
    IPSEC_ADD = 0x0D
    IPSEC_DEL = 0x0E
    GET_LINK_STATE = 0x10
    GET_PF_LINK_STATE = 0x11
    FEATURES_NEGOTIATE = 0x12
    PF_CONTROL = 0x0100
    """From the port: something has changed, look."""


SUCCESS, FAILURE, CLEAR_TO_SEND = 0x80000000, 0x40000000, 0x20000000
"""``IXGBE_VT_MSGTYPE_*``, or'ed to a message's first word by the port's driver."""

INFO_SHIFT, INFO_MASK = 16, 0xFF
"""Bits 23 to 16 of the first word: what some messages say beside their type."""

MULTICAST_FILTER_TYPE = 0
"""The port's: bits 47 to 36 of an address choose its bit in the table."""

RESET_WORDS = 4
"""Of the reply to RESET: type, address in two words, multicast filter type."""


class Api(IntEnum):
    """``ixgbe_mbox_api_*``: the versions of what is said over the mailbox, as they are sent."""

    V10 = 0
    V20 = 1
    V11 = 2
    V12 = 3
    V13 = 4
    V14 = 5
    V15 = 6
    """Spoken by the ESX port driver only; Linux commit a7075f501bd3 ("ixgbevf: fix mailbox API
    compatibility by negotiating supported features")."""
    V16 = 7
    V17 = 8


FEATURE_IPSEC = 1 << 0


class Xcast(IntEnum):
    """``IXGBEVF_XCAST_MODE_*``: which frames to others a VF wants."""

    NONE = 0
    MULTI = 1
    ALLMULTI = 2
    PROMISC = 3


DESCRIPTOR_BYTES = 16
TX_DESCRIPTOR = struct.Struct("<QII")
"""Data: buffer address, cmd_type_len, olinfo_status.  Context: see CONTEXT_DESCRIPTOR."""
CONTEXT_DESCRIPTOR = struct.Struct("<IIII")
"""vlan_macip_lens, fceof_saidx, type_tucmd_mlhl, mss_l4len_idx."""
RX_READ = struct.Struct("<QQ")
"""Packet buffer address, header buffer address."""
RX_WRITEBACK = struct.Struct("<IIIHH")
"""RSS and packet type, RSS hash, status and error, length, VLAN tag."""


class TxCommand(IntEnum):
    """Bits of cmd_type_len; the low 16 are a length, or the data's in its first 20."""

    EOP = 0x01000000
    IFCS = 0x02000000
    RS = 0x08000000
    DEXT = 0x20000000
    VLE = 0x40000000
    TSE = 0x80000000


TX_LENGTH_MASK = 0xFFFF
TX_TYPE_MASK, TX_TYPE_CONTEXT, TX_TYPE_DATA = 0x00F00000, 0x00200000, 0x00300000
TX_DONE = 1
TX_CONTEXTS, TX_CONTEXT_SHIFT = 2, 4
"""A queue has so many contexts; olinfo_status and mss_l4len_idx name one from this bit on (IDX)."""

POPTS_IXSM, POPTS_TXSM = 0x0100, 0x0200
"""In olinfo_status: put in the IP header's checksum; that of TCP or UDP."""

TUCMD_IPV4, TUCMD_L4T_MASK = 0x0400, 0x1800
TUCMD_L4T_UDP, TUCMD_L4T_TCP, TUCMD_L4T_SCTP = 0x0000, 0x0800, 0x1000


class RxStatus(IntEnum):
    """Bits of a receive descriptor's status and error word."""

    DD = 0x01
    EOP = 0x02
    VP = 0x08
    L4CS = 0x20
    IPCS = 0x40
    TCPE = 0x40000000
    IPE = 0x80000000


class PacketType(IntEnum):
    """Bits 15 to 4 of a receive descriptor's first word."""

    IPV4 = 0x010
    IPV6 = 0x040
    TCP = 0x100
    UDP = 0x200


class RssType(IntEnum):
    """Low four bits of the same."""

    NONE = 0
    IPV4_TCP = 1
    IPV4 = 2
    IPV6_TCP = 3
    IPV6 = 5
    IPV4_UDP = 7
    IPV6_UDP = 8


RSS_KEY_BYTES = 40
RETA_ENTRIES = 128
