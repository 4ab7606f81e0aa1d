"""The registers of an Intel 82599 port, as its Linux driver names them.

Ref: Linux 6.12, drivers/net/ethernet/intel/ixgbe: ixgbe_type.h, ixgbe_mbx.h.  Offsets are in bytes
from the start of BAR 0; registers have 32 bits.  `tests/kernel` holds names and numbers against
these headers.
"""

from __future__ import annotations

from enum import Enum, IntEnum

DEVICE = 0x10FB  # IXGBE_DEV_ID_82599_SFP
BAR_BYTES = 128 << 10
VECTORS = 64
"""A port has so many MSI-X vectors; IXGBE_MAX_MSIX_VECTORS_82599."""

QUEUES = 128
"""A port has so many receive queues, and as many to send; IXGBE_82599_MAX_RX_QUEUES."""

VF_QUEUES = 4
"""A VF has so many queues where the port has 32 pools; with 64 pools a VF has two."""

POOLS = 64
RECEIVE_ADDRESSES = 128  # IXGBE_82599_RAR_ENTRIES
VLAN_FILTERS = 64  # IXGBE_VLVF_ENTRIES


class Register(IntEnum):
    """``IXGBE_*`` of ixgbe_type.h; what stands there in rows is in `Row`."""

    CTRL = 0x00000
    STATUS = 0x00008
    CTRL_EXT = 0x00018
    ESDP = 0x00020
    I2CCTL_8259X = 0x00028
    FRTIMER = 0x00048
    LEDCTL = 0x00200
    EICR = 0x00800
    EICS = 0x00808
    EIAC = 0x00810
    EIMS = 0x00880
    EIMC = 0x00888
    EIAM = 0x00890
    GPIE = 0x00898
    IVAR_MISC = 0x00A00
    QDE = 0x02F04
    RDRXCTL = 0x02F00
    RXCTRL = 0x03000
    PRC64 = 0x0405C
    PRC127 = 0x04060
    PRC255 = 0x04064
    PRC511 = 0x04068
    PRC1023 = 0x0406C
    PRC1522 = 0x04070
    GPRC = 0x04074
    BPRC = 0x04078
    MPRC = 0x0407C
    GPTC = 0x04080
    GORCL = 0x04088
    GORCH = 0x0408C
    GOTCL = 0x04090
    GOTCH = 0x04094
    RUC = 0x040A4
    ROC = 0x040AC
    TORL = 0x040C0
    TORH = 0x040C4
    TPR = 0x040D0
    TPT = 0x040D4
    PTC64 = 0x040D8
    PTC127 = 0x040DC
    PTC255 = 0x040E0
    PTC511 = 0x040E4
    PTC1023 = 0x040E8
    PTC1522 = 0x040EC
    MPTC = 0x040F0
    BPTC = 0x040F4
    HLREG0 = 0x04240
    MSCA = 0x0425C
    MSRWD = 0x04260
    MAXFRS = 0x04268
    AUTOC = 0x042A0
    LINKS = 0x042A4
    AUTOC2 = 0x042A8
    ANLP1 = 0x042B0
    RTTDQSEL = 0x04904
    RTTBCNRM = 0x04980
    RTTBCNRC = 0x04984
    DMATXCTL = 0x04A80
    RXCSUM = 0x05000
    FCTRL = 0x05080
    VLNCTRL = 0x05088
    MCSTCTRL = 0x05090
    VT_CTL = 0x051B0
    MRQC = 0x05818
    MTQC = 0x08120
    PFDTXGSWC = 0x08220
    SSVPC = 0x08780
    TXDGPC = 0x087A0
    SECTXSTAT = 0x08804
    SECRXSTAT = 0x08D04
    FDIRCTRL = 0x0EE00
    FDIRCMD = 0x0EE2C
    EEC_8259X = 0x10010
    EERD = 0x10014
    EEWR = 0x10018
    SWSM_8259X = 0x10140
    FWSM_8259X = 0x10148
    FACTPS_8259X = 0x10150
    GSSR = 0x10160
    GCR = 0x11000
    GCR_EXT = 0x11050


class Row(Enum):
    """Registers of one name stand in a row: first offset, how many, bytes from one to the next.

    Where the header has two places for one row (``RAL(15)`` and before), this is the 82599's own;
    the older place is in `ALIASES`.
    """

    EITR = (0x00820, 24, 4)
    EITR_HIGH = (0x12300, 40, 4)
    """``EITR(24)`` and after."""
    IVAR = (0x00900, 64, 4)
    EICS_EX = (0x00A90, 2, 4)
    EIMS_EX = (0x00AA0, 2, 4)
    EIMC_EX = (0x00AB0, 2, 4)
    EIAM_EX = (0x00AD0, 2, 4)
    MBVFICR = (0x00710, 4, 4)
    VFLREC = (0x00700, 2, 4)
    RQSMR = (0x02300, 32, 4)
    RXPBSIZE = (0x03C00, 8, 4)
    MPC = (0x03FA0, 8, 4)
    PFMAILBOX = (0x04B00, 64, 4)
    VMTXSW = (0x05180, 2, 4)
    VFRE = (0x051E0, 2, 4)
    MTA = (0x05200, 128, 4)
    RETA = (0x05C00, 32, 4)
    RSSRK = (0x05C80, 10, 4)
    VMVIR = (0x08000, 64, 4)
    VFTE = (0x08110, 2, 4)
    PFVFSPOOF = (0x08200, 8, 4)
    PVFGPTC = (0x08300, 64, 4)
    PVFGOTC_LSB = (0x08400, 64, 8)
    PVFGOTC_MSB = (0x08404, 64, 8)
    TQSM = (0x08600, 32, 4)
    QBTC_L = (0x08700, 16, 8)
    QBTC_H = (0x08704, 16, 8)
    VMECM = (0x08790, 2, 4)
    VFTA = (0x0A000, 128, 4)
    RAL = (0x0A200, 128, 8)
    RAH = (0x0A204, 128, 8)
    MPSAR_LO = (0x0A600, 128, 8)
    MPSAR_HI = (0x0A604, 128, 8)
    PSRTYPE = (0x0EA00, 64, 4)
    VMOLR = (0x0F000, 64, 4)
    VLVF = (0x0F100, 64, 4)
    VLVFB = (0x0F200, 128, 4)
    UTA = (0x0F400, 128, 4)
    PFMBMEM = (0x13000, 1024, 4)
    """16 words for each of 64 VFs, one after the other."""

    def __init__(self, first: int, count: int, step: int) -> None:
        self.first, self.count, self.step = first, count, step

    def at(self, index: int) -> int:
        """The offset of register *index* of this row."""
        return self.first + index * self.step


ALIASES = {
    **{0x05400 + 4 * number: Row.RAL.first + 4 * number for number in range(32)},
    **{0x05480 + 4 * number: Row.PSRTYPE.at(number) for number in range(16)},
}
"""An 82599 answers at these offsets of the 82598 too; each leads to an 82599's own offset."""

VFLRE = (0x00600, 0x001C0)
"""These registers have a bit for each VF that was reset; IXGBE_VFLRE(0), (1).  VFLREC clears it."""

RECEIVE_BLOCKS, TRANSMIT_BLOCKS = ((0x01000, 0), (0x0D000, 64)), ((0x06000, 0), (0x07000, 64))
"""The registers of 64 queues begin at each offset here; the number is the first queue's.

The registers of one queue are those of a VF's own, `ixgbe_vf.QueueRegister`, 0x40 bytes for each.
"""

SRRCTL_ALIAS, RX_DCA_ALIAS = 0x02100, 0x02200
"""SRRCTL and DCA_RXCTRL of queues 0 to 15 stand here as well, four bytes apart."""


class QueueStatistic(IntEnum):
    """Offsets in a receive or transmit block that do not belong to its queue: counters."""

    PVFGPRC = 0x1C
    """VF's good packets received; also of a receive block, PVFGORC_LSB.  Their upper halves, and
    PVFMPRC, stand in the blocks of queues 64 and after."""
    PVFGORC = 0x20
    QPC = 0x30
    """QPRC of a receive block, QPTC of a transmit block."""
    QBC_L = 0x34
    QBRC_H = 0x38


class Ctrl(IntEnum):
    """Bits of CTRL."""

    GIO_DIS = 0x00000004
    LNK_RST = 0x00000008
    RST = 0x04000000


class CtrlExt(IntEnum):
    """Bits of CTRL_EXT."""

    PFRSTD = 0x00004000
    DRV_LOAD = 0x10000000


class Eicr(IntEnum):
    """Bits of EICR that are no vector of a queue's."""

    MAILBOX = 0x00080000
    LSC = 0x00100000


class Links(IntEnum):
    """Bits of LINKS."""

    UP = 0x40000000
    SPEED_10G = 0x30000000
    SPEED_1G = 0x20000000
    SPEED_100 = 0x10000000


class PfMailbox(IntEnum):
    """Bits of PFMAILBOX."""

    STS = 0x01
    ACK = 0x02
    VFU = 0x04
    PFU = 0x08
    RVFU = 0x10


class Vmolr(IntEnum):
    """Bits of VMOLR: what a pool accepts."""

    AUPE = 0x01000000
    ROMPE = 0x02000000
    ROPE = 0x04000000
    BAM = 0x08000000
    MPE = 0x10000000


class VtCtl(IntEnum):
    """Bits of VT_CTL."""

    VT_ENABLE = 0x00000001
    DIS_DEFPL = 0x20000000
    REPLEN = 0x40000000


VT_CTL_POOL_SHIFT, VT_CTL_POOL_MASK = 7, 0x3F


class Fctrl(IntEnum):
    """Bits of FCTRL."""

    MPE = 0x100
    UPE = 0x200
    BAM = 0x400


MCSTCTRL_MFE = 0x4
VLNCTRL_VFE = 0x40000000
VLVF_VIEN, VLVF_VLANID_MASK = 0x80000000, 0xFFF
VMVIR_VLANA_DEFAULT, VMVIR_VLANA_NEVER = 0x40000000, 0x80000000
RAH_AV = 0x80000000
PFDTXGSWC_VT_LBEN = 0x1
SPOOF_MACAS_MASK, SPOOF_VLANAS_SHIFT = 0xFF, 8
HLREG0_TXCRCEN, HLREG0_RXCRCSTRP, HLREG0_TXPADEN = 0x1, 0x2, 0x400
HLREG0_JUMBOEN = 0x4
HLREG0_LPBK = 0x8000
MAXFRS_SHIFT = 16
GPIE_MSIX_MODE, GPIE_OCD, GPIE_EIAME = 0x10, 0x20, 0x40000000
QDE_ENABLE, QDE_WRITE, QDE_IDX_MASK, QDE_IDX_SHIFT = 0x1, 0x10000, 0x7F00, 8
SRRCTL_DROP_EN = 0x10000000
RTTBCNRC_RS_ENA, RTTBCNRC_RF_INT_SHIFT, RTTBCNRC_RF_MASK = 0x80000000, 14, 0x0FFFFFFF
"""RS_ENA turns a queue's rate limiter on; RF is the link's rate by the queue's, in 2**14ths."""

RXCTRL_RXEN = 0x1
DMATXCTL_TE = 0x1
MRQC_MRQE_MASK = 0xF


class Mrqe(IntEnum):
    """Values of MRQC's low four bits that Linux uses without traffic classes."""

    RSSEN = 0x1
    VMDQEN = 0x8
    VMDQRSS32EN = 0xA
    VMDQRSS64EN = 0xB


class RssField(IntEnum):
    """``IXGBE_MRQC_RSS_FIELD_*``: bits of MRQC that say what hashes are made of."""

    IPV4_TCP = 0x00010000
    IPV4 = 0x00020000
    IPV6 = 0x00100000
    IPV6_TCP = 0x00200000
    IPV4_UDP = 0x00400000
    IPV6_UDP = 0x00800000


STATUS_LAN_ID_SHIFT, STATUS_GIO = 2, 0x00080000
"""STATUS has the port's number on the chip in two bits, from LAN_ID_SHIFT on; STATUS_GIO says that
the port may use the bus."""

FDIRCTRL_INIT_DONE = 0x8
FDIRCMD_CMD_MASK = 0x3
