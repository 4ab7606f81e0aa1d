"""Programs of this machine run to their end, and a program that fails becomes a LabError."""

from __future__ import annotations

import shlex
import subprocess

from harness.errors import LabError

END_SECONDS = 60
"""A program that answers from this machine alone has ended by then, also under load."""


def run(
    *argv: str, means: str, seconds: float = END_SECONDS
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run the program *argv* to its end, and return its exit status and output as text.

    Raises LabError if the program is not installed, or runs longer than *seconds* and is killed.
    *means* is the text of the error that says what that means.  A program that fails raises
    nothing.
    """
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, errors="replace", check=False, timeout=seconds,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError as missing:
        raise LabError(
            f"this machine: {missing.filename} is not installed",
            because=means,
            fix="install its package, or run `make demo` or `make test`, which do so",
        ) from None
    except subprocess.TimeoutExpired as late:
        said = late.stderr.decode(errors="replace") if late.stderr else ""
        raise LabError(
            f"this machine: {argv[0]} did not end in {seconds:g} s, and was killed",
            because=f"{means}; its last words: {last_words(said)}",
            fix=f"see whether `{shlex.join(argv)}` ends when it is run by hand",
        ) from None


def output_of(*argv: str, means: str, fix: str = "", seconds: float = END_SECONDS) -> str:
    """Run the program *argv* as `run` does, and return what it wrote to its standard output.

    Raises LabError also if the exit status is not zero; *fix* says what to do about that.
    """
    done = run(*argv, means=means, seconds=seconds)
    if done.returncode:
        raise LabError(
            f"this machine: `{shlex.join(argv)}` ended with status {done.returncode}",
            because=f"{means}; its last words: {last_words(done.stderr)}",
            fix=fix
            or "mend what the program complains of; the folder of images is to be on a "
            "disk with room, and VF_HARNESS_CACHE names another one",
        )
    return done.stdout


def last_words(text: str) -> str:
    """Return the last four lines of a program's output *text*, as one line."""
    return " | ".join(text.strip().splitlines()[-4:]) or "nothing"
