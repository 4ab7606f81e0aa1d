"""The way to the machines of a lab: SSH or local, and what can be asked of a machine."""

from harness.remote.connecting import Connection, connect, log_in
from harness.remote.host import Facts, Host, Process
from harness.remote.lease import Lease
from harness.remote.recorder import Recorder
from harness.remote.transport import (
    CommandError,
    Completed,
    DeadlineError,
    HostGoneError,
    Transport,
)

__all__ = [
    "CommandError",
    "Completed",
    "Connection",
    "DeadlineError",
    "Facts",
    "Host",
    "HostGoneError",
    "Lease",
    "Process",
    "Recorder",
    "Transport",
    "connect",
    "log_in",
]
