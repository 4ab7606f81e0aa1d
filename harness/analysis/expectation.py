"""A test says beforehand what a migration is to come to."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.verdict import Verdict, Word


@dataclass(frozen=True, slots=True)
class Expectation:
    """A test expects a verdict with this *word*, which has a reason for each text of *because*.

    A reason for a text is one that contains the text.  `Pass`, `Fail` and `Invalid` make
    expectations: ``expect=Fail("DMA order broken")``.
    """

    word: Word
    because: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(self.because):
            raise ValueError("an empty text is in every reason, and expects nothing")

    def met_by(self, verdict: Verdict) -> bool:
        """Say whether *verdict* has the word, and each text of *because* in one of its reasons."""
        return verdict.word == self.word and all(
            any(text in reason for reason in verdict.reasons) for text in self.because
        )

    def __str__(self) -> str:
        return f"{self.word}: {', '.join(self.because)}" if self.because else self.word


def Pass() -> Expectation:  # noqa: N802
    """Return the expectation that the migration passes."""
    return Expectation("pass")


def Fail(reason: str, *reasons: str) -> Expectation:  # noqa: N802
    """Return the expectation that the migration fails for these reasons, and maybe others too."""
    return Expectation("fail", (reason, *reasons))


def Invalid(reason: str, *reasons: str) -> Expectation:  # noqa: N802
    """Return the expectation that the migration has no result, for these reasons."""
    return Expectation("invalid", (reason, *reasons))


PASS = Pass()
