"""``python3 -I agent.pyz PROGRAM``: run one of the agent's programs.

A *recorder* takes its spec from stdin and is started by the agent (see ``channel``).  A *service*
takes arguments and is started over SSH.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Callable

from harness.agent.channel import Channel
from harness.agent.errors import AgentError

# name -> "module:function" of (spec, channel) -> summary, imported only when it is asked for
PROGRAMS = {
    "sender": "harness.agent.sender:main",
    "receiver": "harness.agent.receiver:main",
    "observer": "harness.agent.observer:main",
    "kernel-log": "harness.agent.kernel_log:main",
    "links": "harness.agent.links:main",
}
# name -> "module:function" of (arguments) -> exit status
SERVICES = {
    "serve": "harness.agent.serve:main",
    "resident": "harness.agent.resident:main",
    "relay": "harness.agent.relay:main",
}


def main() -> int:
    """Run what ``sys.argv`` names; its exit status."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in SERVICES:
        return int(_load(SERVICES[name])(sys.argv[2:]))
    if name in PROGRAMS:
        return record(_load(PROGRAMS[name]), Channel.on_standard_streams())
    known = ", ".join(sorted({**PROGRAMS, **SERVICES}))
    print(f"unknown program {name!r}; known are {known}", file=sys.stderr)  # noqa: T201
    return 2


def record(program: Callable[[dict[str, Any], Channel], dict[str, Any]], channel: Channel) -> int:
    """Run one recorder from spec to summary; 1 if it failed, after saying why."""
    try:
        channel.say({"summary": program(channel.read_spec(), channel)})
    except AgentError as error:
        channel.say({"error": error.as_dict()})
        return 1
    except OSError as error:
        refused = AgentError(
            f"the recorder failed: {error}",
            because="the kernel refused what it asked for",
            fix="see the traceback in the agent's stderr; recorders need root",
        )
        channel.say({"error": refused.as_dict()})
        raise
    return 0


def _load(target: str) -> Callable[..., Any]:
    module, _, function = target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


if __name__ == "__main__":
    sys.exit(main())
