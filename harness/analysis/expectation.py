"""A test says beforehand what a migration is to come to."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.verdict import Verdict, Word


@dataclass(frozen=True, slots=True)
class Expectation:
    """A test expects a verdict with this *word*, which has a reason for each text of *because*.

    A reason for a text is one that contains the text.  A test writes
    `Pass`, `Fail` or `Invalid`: ``expect=Fail("DMA order broken")``.
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


class Pass(Expectation):
    """The migration is to pass."""

    def __init__(self) -> None:
        super().__init__("pass")


class Fail(Expectation):
    """The migration is to fail for these reasons, and may have others too."""

    def __init__(self, reason: str, *reasons: str) -> None:
        super().__init__("fail", (reason, *reasons))


class Invalid(Expectation):
    """The migration is to have no result, for these reasons."""

    def __init__(self, reason: str, *reasons: str) -> None:
        super().__init__("invalid", (reason, *reasons))


PASS = Pass()
