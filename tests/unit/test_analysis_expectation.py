"""What a test expects of a migration is met by the verdict and by its reasons, or is not."""

from __future__ import annotations

import pytest

from harness.analysis.expectation import Expectation, Fail, Invalid, Pass
from harness.analysis.verdict import Verdict

BROKEN = Verdict("fail", ("DMA order broken: VF 0000:01:10.0", "flow jumbo: 3 frames lost"))


@pytest.mark.parametrize(
    ("expected", "verdict", "is_met"),
    [
        (Pass(), Verdict("pass"), True),
        (Pass(), BROKEN, False),
        (Fail("DMA order broken"), BROKEN, True),
        (Fail("DMA order broken", "frames lost"), BROKEN, True),
        (Fail("DMA order broken", "pages of memory"), BROKEN, False),
        (Fail("pages of memory"), BROKEN, False),
        (Fail("DMA order broken"), Verdict("pass"), False),
        (Fail("DMA order broken"), Verdict("invalid", BROKEN.reasons), False),
        (Invalid("late"), Verdict("invalid", ("3 ms late",)), True),
        (Invalid("late"), Verdict("invalid", ("dropped",)), False),
    ],
)
def test_a_control_must_go_red_for_its_own_reason(
    expected: Expectation, verdict: Verdict, is_met: bool
) -> None:
    """A lab that was down all night fails every control, and proves nothing."""
    assert expected.met_by(verdict) is is_met


def test_a_reason_that_anything_meets_is_refused() -> None:
    with pytest.raises(ValueError, match="expects nothing"):
        Fail("")


def test_an_expectation_is_told_in_words() -> None:
    assert str(Pass()) == "pass"
    assert str(Fail("DMA order broken", "frames lost")) == "fail: DMA order broken, frames lost"
