"""A test says beforehand what a migration is to come to."""

from __future__ import annotations

from harness.analysis.verdict import Verdict, Word


class Expectation:
    """A verdict *word*; of a verdict that is no pass also why, a part of a reason for each text.

    The subclasses are what a test writes: ``expect=Fail("DMA order broken")``.
    """

    def __init__(self, word: Word, because: tuple[str, ...]) -> None:
        self.word = word
        self.because = because

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
        super().__init__("pass", ())


class Fail(Expectation):
    """The migration is to fail, and for these reasons: any other failure proves nothing."""

    def __init__(self, reason: str, *reasons: str) -> None:
        super().__init__("fail", (reason, *reasons))


class Invalid(Expectation):
    """The migration is to have no result, and for these reasons."""

    def __init__(self, reason: str, *reasons: str) -> None:
        super().__init__("invalid", (reason, *reasons))
