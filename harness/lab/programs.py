"""Programs of this machine run to their end, and a program that fails becomes a LabError."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from contextlib import suppress

from harness.errors import LabError

LEAVING_SECONDS = 10
END_SECONDS = 60
"""A program that answers from this machine alone has ended by then, also under load."""


def run(
    *argv: str, means: str, seconds: float = END_SECONDS
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run the program *argv* to its end, and return its exit status and output as text.

    Raises LabError if the program is not installed, or runs longer than *seconds* and is ended.
    *means* is the text of the error that says what that means.  A program that fails raises
    nothing.
    """
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError as missing:
        raise LabError(
            f"this machine: {missing.filename} is not installed",
            because=means,
            fix="install its package, or run `make demo` or `make test`, which do so",
        ) from None
    except OSError as refused:
        raise LabError(
            f"this machine: {argv[0]} cannot be run: {refused.strerror}",
            because=means,
            fix=f"see whether `{shlex.join(argv)}` runs by hand",
        ) from None
    try:
        output, words = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise LabError(
            f"this machine: {argv[0]} did not end in {seconds:g} s, and was ended",
            because=f"{means}; its last words: {last_words(_end(process))}",
            fix=f"see whether `{shlex.join(argv)}` ends when it is run by hand",
        ) from None
    except BaseException:  # Ctrl-C, above all
        _end(process)
        raise
    return subprocess.CompletedProcess(argv, process.returncode, output, words)


def _end(process: subprocess.Popen[str]) -> str:
    """End *process* and all that it has started, and return what it wrote to its standard error.

    SIGTERM comes first: mmdebstrap then unmounts what it has mounted.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=LEAVING_SECONDS)[1]
    return ""


def output_of(*argv: str, means: str, fix: str = "", seconds: float = END_SECONDS) -> str:
    """Run the program *argv* as `run` does, and return what it wrote to its standard output.

    Raises LabError also if the exit status is not zero; *fix* says what to do about that.
    """
    done = run(*argv, means=means, seconds=seconds)
    if done.returncode:
        raise LabError(
            f"this machine: `{shlex.join(argv)}` ended with status {done.returncode}",
            because=f"{means}; its last words: {last_words(done.stderr)}",
            fix=fix or f"see what `{shlex.join(argv)}` says when it is run by hand",
        )
    return done.stdout


def last_words(text: str) -> str:
    """Return the last four lines of a program's output *text*, as one line."""
    return " | ".join(text.strip().splitlines()[-4:]) or "nothing"
