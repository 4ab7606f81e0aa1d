"""``agent.pyz relay PATH``: carry bytes between stdin and stdout and a unix socket, such as QMP.

First one line, ``{"ready": {}}`` or ``{"error": {...}}``; from then on the bytes alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading

from harness.agent.files import refused


def main(arguments: list[str]) -> int:
    """Relay until the socket's other end closes; 0, or 1 if there is nobody to connect to."""
    (path,) = arguments
    with socket.socket(socket.AF_UNIX) as peer:
        try:
            peer.connect(path)
        except OSError as error:
            _write({"error": refused(f"connecting to {path}", error).as_dict()})
            return 1
        _write({"ready": {}})
        threading.Thread(target=_forward, args=(sys.stdin.fileno(), peer), daemon=True).start()
        while data := peer.recv(1 << 16):
            _write_all(sys.stdout.fileno(), data)
    return 0


def _forward(source: int, peer: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the peer has closed, which main sees too
        while data := os.read(source, 1 << 16):
            peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)


def _write(message: object) -> None:
    _write_all(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")


def _write_all(output: int, data: bytes) -> None:
    while data:
        data = data[os.write(output, data) :]
