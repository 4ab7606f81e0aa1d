"""``agent.pyz resident --state FOLDER --socket PATH``: an agent that stays when its asker goes.

A guest's SSH connections do not survive its migration, but what records inside it has to.  So its
agent serves a unix socket, one thread for each connection, and is found there again afterwards.
It ends with the machine.  What is started here is a relay to it, and the agent only if there is
none yet.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from harness.agent import relay

if TYPE_CHECKING:
    from harness.agent.serve import Agent


def main(arguments: list[str]) -> int:
    """Relay between our streams and the agent; see ``relay``."""
    parser = argparse.ArgumentParser(prog="agent.pyz resident")
    parser.add_argument("--state", required=True, help="folder of the journal and the lease")
    parser.add_argument("--socket", required=True, help="path of the unix socket to serve")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    if not _is_served(options.socket):
        Path(options.socket).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(options.socket)
        listener.listen()
        _detach(lambda: _serve(listener, options.state))
        listener.close()
    return relay.main([options.socket])


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


def _serve(listener: socket.socket, state: str) -> None:
    from harness.agent.serve import Agent  # not for those who find it running: a guest is slow

    agent = Agent(state)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve_one, args=(connection, agent), daemon=True).start()


def _serve_one(connection: socket.socket, agent: Agent) -> None:
    from harness.agent.serve import replier

    with connection, connection.makefile("rb") as lines, contextlib.suppress(ConnectionError):
        agent.serve(lines, replier(connection.fileno()))
