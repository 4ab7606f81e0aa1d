"""A twin and a chip listen on UNIX sockets of their own."""

from __future__ import annotations

import os
import socket

from harness.twin.say import say


def listening(path: str) -> socket.socket:
    """Return a socket that listens at *path*, for its owner alone; the caller closes it.

    Raises OSError where something is at *path* already.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o077)
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    listener.listen()
    return listener


def accepted(listener: socket.socket) -> socket.socket | None:
    """Return the connection of whoever asks first; None, and say so, if that is impossible now."""
    try:
        return listener.accept()[0]
    except OSError as refused:
        say(f"somebody could not be served: {refused}")
        return None
