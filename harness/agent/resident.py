"""``agent.pyz resident --state FOLDER --socket PATH``: an agent that stays when its asker goes.

A guest's SSH connections do not survive its migration, but what records inside it has to.  So its
agent serves a unix socket, one thread for each connection, and is found there again afterwards.
It ends with the machine.  Started a second time, it says ``{"ready": {}}`` and leaves the first
one as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Callable

from harness.agent.serve import STATE, Agent, replier


def main(arguments: list[str]) -> int:
    """Return 0 as soon as somebody serves the socket; the serving goes on by itself."""
    parser = argparse.ArgumentParser(prog="agent.pyz resident")
    parser.add_argument("--state", default=STATE, help="folder of the journal and the lease")
    parser.add_argument("--socket", required=True, help="path of the unix socket to serve")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    if not _is_served(options.socket):
        Path(options.socket).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(options.socket)
        listener.listen()
        _detach(lambda: _serve(listener, Agent(options.state)))
    sys.stdout.write(json.dumps({"ready": {}}) + "\n")
    return 0


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as attempt, contextlib.suppress(OSError):
        attempt.connect(path)
        return True
    return False


def _detach(serve: Callable[[], None]) -> None:
    """Run *serve* in a process of its own session; what it complains of goes to its log."""
    if os.fork():
        return
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    log = os.open(f"{sys.argv[0]}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for own, other in ((0, nothing), (1, log), (2, log)):
        os.dup2(other, own)
    try:
        serve()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        raise
    finally:
        os._exit(1)  # not through what the parent, whose copy this is, has yet to do


def _serve(listener: socket.socket, agent: Agent) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve_one, args=(connection, agent), daemon=True).start()


def _serve_one(connection: socket.socket, agent: Agent) -> None:
    with connection, connection.makefile("rb") as lines, contextlib.suppress(ConnectionError):
        agent.serve(lines, replier(connection.fileno()))
