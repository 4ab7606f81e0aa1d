"""A server does the commands of vfio-user on a function, and replies with an errno to a wrong one.

Ref: QEMU 11.1, docs/interop/vfio-user.rst.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
from typing import Any, Callable

from harness.twin.channel import MAX_DESCRIPTORS, Channel, ClientGone, Message
from harness.twin.fields import expect, is_eventfd, is_one, structure, unpack, unpack_head
from harness.twin.function import Function
from harness.twin.memory import MOST_REGIONS, Refused
from harness.uapi import vfio_user
from harness.uapi.vfio import (
    DeviceFlag,
    DeviceInfo,
    IrqFlag,
    IrqInfo,
    IrqSet,
    IrqSetFlag,
    PciIrq,
    PciRegion,
    RegionFlag,
    RegionInfo,
)
from harness.uapi.vfio_user import Command, UnmapFlag

_DEVICE_INFO_BYTES = DeviceInfo.cap_offset.offset  # vfio-user ends before the capabilities
_ACTIONS = IrqSetFlag.ACTION_MASK | IrqSetFlag.ACTION_UNMASK | IrqSetFlag.ACTION_TRIGGER
_DATA = IrqSetFlag.DATA_NONE | IrqSetFlag.DATA_BOOL | IrqSetFlag.DATA_EVENTFD
_SINGLE_BYTES = 8  # the most that one of many writes carries


class Server:
    """One client's commands, answered in the order in which they come."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._negotiated = False
        self._handlers: dict[int, Callable[[Message], bytes]] = {
            Command.DMA_MAP: self._map,
            Command.DMA_UNMAP: self._unmap,
            Command.DEVICE_GET_INFO: self._device_info,
            Command.DEVICE_GET_REGION_INFO: self._region_info,
            Command.DEVICE_GET_IRQ_INFO: self._irq_info,
            Command.DEVICE_SET_IRQS: self._set_irqs,
            Command.REGION_READ: self._region_read,
            Command.REGION_WRITE: self._region_write,
            Command.REGION_WRITE_MULTI: self._write_multi,
            Command.DEVICE_RESET: self._reset,
        }

    def answer(self, channel: Channel, message: Message) -> None:
        """Do what *message* asks for and reply.

        Raises ClientGone where the two sides have no protocol in common.
        """
        try:
            if message.command == Command.VERSION and message.is_command:
                channel.reply(message, self._version(message))
                return
            handler = self._handlers.get(message.command)
            if not message.is_command:
                raise Refused(errno.EINVAL)
            if handler is None:
                raise Refused(errno.ENOSYS)
            if not self._negotiated:
                raise Refused(errno.EINVAL)
            channel.reply(message, handler(message))
        except Refused as refused:
            channel.refuse(message, refused.error)

    def client_gone(self) -> None:
        """Reset the function, and let go of the client's memory and interrupts.

        Ref: Linux, drivers/vfio/pci/vfio_pci_core.c, vfio_pci_core_disable(): whoever closes a VF,
        or is killed, leaves it reset.
        """
        if self._negotiated:
            self._function.reset()
        self._negotiated = False
        self._function.memory.unmap_all()
        self._function.memory.channel = None
        self._function.vectors.disconnect()

    def _version(self, message: Message) -> bytes:
        expect(not self._negotiated and not message.descriptors)
        (major, minor), text = unpack_head(vfio_user.VERSION_HEAD, message)
        if major != vfio_user.VERSION[0]:
            raise ClientGone(f"the client speaks version {major}, we speak {vfio_user.VERSION[0]}")
        try:
            proposed = json.loads(bytes(text).rstrip(b"\0") or b"{}")
            offered = dict(proposed.get("capabilities", {}))
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise Refused(errno.EINVAL) from None
        agreed = self._agreed(offered)
        self._function.connect()
        self._negotiated = True
        head = vfio_user.VERSION_HEAD.pack(major, min(minor, vfio_user.VERSION[1]))
        return head + json.dumps({"capabilities": agreed}).encode() + b"\0"

    def _agreed(self, offered: dict[str, Any]) -> dict[str, int | bool]:
        """Agree to what the client offers and we know, with the smaller of two limits."""
        limits = {
            "max_msg_fds": MAX_DESCRIPTORS,
            "max_data_xfer_size": vfio_user.MAX_TRANSFER,
            "max_dma_maps": MOST_REGIONS,
        }
        agreed: dict[str, int | bool] = {}
        for name, most in limits.items():
            if name in offered:
                expect(type(offered[name]) is int and offered[name] > 0)
                agreed[name] = min(offered[name], most)
        if "pgsizes" in offered:
            agreed["pgsizes"] = vfio_user.PAGE_SIZES
        if offered.get("write_multiple") is True:
            agreed["write_multiple"] = True
        transfer = agreed.get("max_data_xfer_size", vfio_user.MAX_TRANSFER)
        self._function.memory.largest_transfer = transfer
        return agreed

    def _map(self, message: Message) -> bytes:
        room, flags, offset, address, size = unpack(vfio_user.DMA_MAP, message)
        expect(room >= vfio_user.DMA_MAP.size and len(message.descriptors) <= 1)
        descriptor = message.descriptors[0] if message.descriptors else None
        self._function.memory.map(address, size, flags, offset, descriptor)
        return b""

    def _unmap(self, message: Message) -> bytes:
        room, flags, address, size = unpack(vfio_user.DMA_UNMAP, message)
        expect(room >= vfio_user.DMA_UNMAP.size and not message.descriptors)
        if flags == UnmapFlag.ALL:
            expect(not address and not size)
            self._function.memory.unmap_all()
        else:
            expect(not flags)
            self._function.memory.unmap(address, size)
        return bytes(message.payload)

    def _device_info(self, message: Message) -> bytes:
        expect(len(message.payload) == _DEVICE_INFO_BYTES and not message.descriptors)
        expect(int.from_bytes(message.payload[:4], "little") >= _DEVICE_INFO_BYTES)
        info = DeviceInfo(
            argsz=_DEVICE_INFO_BYTES,
            flags=DeviceFlag.RESET | DeviceFlag.PCI,
            num_regions=max(PciRegion) + 1,
            num_irqs=max(PciIrq) + 1,
        )
        return bytes(info)[:_DEVICE_INFO_BYTES]

    def _region_info(self, message: Message) -> bytes:
        asked = structure(RegionInfo, message)
        expect(asked.index <= max(PciRegion))
        size = self._function.regions.get(asked.index, 0)
        flags = RegionFlag.READ | RegionFlag.WRITE if size else 0
        return bytes(
            RegionInfo(argsz=ctypes.sizeof(RegionInfo), flags=flags, index=asked.index, size=size)
        )

    def _irq_info(self, message: Message) -> bytes:
        asked = structure(IrqInfo, message)
        expect(asked.index <= max(PciIrq))
        has = asked.index == PciIrq.MSIX
        flags = IrqFlag.EVENTFD | IrqFlag.MASKABLE if has else 0
        return bytes(
            IrqInfo(
                argsz=ctypes.sizeof(IrqInfo), flags=flags, index=asked.index,
                count=self._function.vectors.count if has else 0,
            )
        )  # fmt: skip

    def _set_irqs(self, message: Message) -> bytes:
        head = ctypes.sizeof(IrqSet)
        expect(len(message.payload) >= head)
        asked = IrqSet.from_buffer_copy(message.payload)
        expect(asked.argsz >= head)
        data, action = asked.flags & _DATA, asked.flags & _ACTIONS
        expect(is_one(data) and is_one(action) and asked.flags == data | action)
        expect(asked.index <= max(PciIrq))
        count = self._function.vectors.count if asked.index == PciIrq.MSIX else 0
        expect(asked.start + asked.count <= count)
        values = message.payload[head:]
        if data == IrqSetFlag.DATA_BOOL:
            expect(len(values) == asked.count and not message.descriptors)
        elif data == IrqSetFlag.DATA_EVENTFD:
            expect(not values and len(message.descriptors) in (0, asked.count))
        else:
            expect(not values and not message.descriptors)
        if data == IrqSetFlag.DATA_EVENTFD:
            self._connect(message, asked.start, asked.count, action)
            return b""
        if not asked.count:
            if action == IrqSetFlag.ACTION_TRIGGER and asked.index == PciIrq.MSIX:
                self._function.vectors.disconnect()
            return b""
        for place in range(asked.count):
            if data == IrqSetFlag.DATA_NONE or values[place]:
                self._act(asked.start + place, action)
        return b""

    def _connect(self, message: Message, start: int, count: int, action: int) -> None:
        """Give vectors the descriptors that came, or take theirs away where none came."""
        expect(action == IrqSetFlag.ACTION_TRIGGER and all(map(is_eventfd, message.descriptors)))
        for vector in range(start, start + count):
            eventfd = message.descriptors.pop(0) if message.descriptors else None
            if eventfd is not None:
                os.set_blocking(eventfd, False)
            self._function.vectors.connect(vector, eventfd)

    def _act(self, vector: int, action: int) -> None:
        if action == IrqSetFlag.ACTION_TRIGGER:
            self._function.vectors.trigger(vector)
        else:
            self._function.vectors.mask(vector, action == IrqSetFlag.ACTION_MASK)

    def _region_read(self, message: Message) -> bytes:
        offset, region, count = unpack(vfio_user.REGION_ACCESS, message)
        expect(not message.descriptors)
        self._check_access(region, offset, count)
        head = bytes(message.payload)
        if region == PciRegion.BAR0:
            expect(count in (4, 8) and not offset % 4)
            words = range(offset, offset + count, 4)
            return head + b"".join(self._function.read(at).to_bytes(4, "little") for at in words)
        if region == PciRegion.CONFIG:
            return head + self._function.config.read(offset, count)
        return head + bytes(count)  # MSI-X table and pending bits: the client has its own

    def _region_write(self, message: Message) -> bytes:
        head = vfio_user.REGION_ACCESS
        (offset, region, count), data = unpack_head(head, message)
        expect(len(data) == count and not message.descriptors)
        self._write(region, offset, bytes(data))
        return bytes(message.payload[: head.size])

    def _write_multi(self, message: Message) -> bytes:
        head, entry = vfio_user.WRITE_MULTI_HEAD, vfio_user.WRITE_MULTI_ENTRY
        (writes,), entries = unpack_head(head, message)
        expect(len(entries) == writes * entry.size and not message.descriptors)
        for offset, region, count, data in entry.iter_unpack(entries):
            expect(count <= _SINGLE_BYTES)
            self._write(region, offset, data[:count])
        return head.pack(writes)

    def _write(self, region: int, offset: int, data: bytes) -> None:
        self._check_access(region, offset, len(data))
        if region == PciRegion.BAR0:
            expect(len(data) in (4, 8) and not offset % 4)
            for at in range(0, len(data), 4):
                self._function.write(offset + at, int.from_bytes(data[at : at + 4], "little"))
        elif region == PciRegion.CONFIG:
            self._function.config.write(offset, data)

    def _check_access(self, region: int, offset: int, count: int) -> None:
        """Refuse what does not lie within its region, the largest of which fits one transfer."""
        expect(region <= max(PciRegion) and count > 0)
        expect(offset + count <= self._function.regions.get(region, 0))

    def _reset(self, message: Message) -> bytes:
        expect(not message.payload and not message.descriptors)
        self._function.reset()
        return b""
