"""What the user's own measure changes in a verdict: its limit, the mark, and what is no failure where it is kept."""

from __future__ import annotations

from typing import Any

import pytest

from onnxfold.evaluation.own_measure import Measured
from onnxfold.evaluation.quality import USUAL, Deviation, Limit, Mark, Quality
from onnxfold.evaluation.verdict import Check, ProviderCheck, Status

LOST = Quality((Deviation("y", 1.5, 1.2),), samples=8, inputs="noise", independent=True)
FINE = Quality((Deviation("y", 0.01, 0.01),), samples=8, inputs="noise")
KEPT, BROKEN = Measured("f", 0.9, 0.88, 0.02, 0.05), Measured("f", 0.9, 0.8, 0.1, 0.05)
TOLD = Measured("f", 0.9, 0.8, 0.1)


def judged(quality: Quality | None, measure: Measured | None, limit: Limit = USUAL, **check: Any) -> Check:
    return Check(**{"problems": (), "notes": (), "providers": (), "inputs": "noise", **check}).judged(
        quality, limit, False, measure
    )


@pytest.mark.parametrize(
    ("quality", "measure", "mark"),
    [
        (FINE, None, Mark.UNSURE), (FINE, TOLD, Mark.UNSURE), (FINE, KEPT, Mark.KEPT), (FINE, BROKEN, Mark.FAILED),
        (LOST, None, Mark.FAILED), (LOST, TOLD, Mark.FAILED), (LOST, KEPT, Mark.KEPT), (LOST, BROKEN, Mark.FAILED),
    ],
)  # fmt: skip
def test_the_mark(quality: Quality, measure: Measured | None, mark: Mark) -> None:
    found = judged(quality, measure)
    assert found.mark is mark and found.passed is (mark is not Mark.FAILED) and found.measure is measure


def test_a_broken_drop_says_which() -> None:
    assert judged(FINE, BROKEN).problems == ("metric 0.8 (was 0.9), which breaks `max_drop=0.05`",)


def test_a_measure_need_not_look_at_every_output() -> None:
    several = Quality((*FINE.outputs, Deviation("z", 1.5, 1.2)), samples=8, inputs="noise", independent=True)
    found = judged(several, KEPT)
    assert found.passed and "output 'z' is lost" in found.notes[0]
    assert not judged(LOST, KEPT).notes, "the one output's error stands in the verdict anyway"


def test_what_was_found_before_stays_a_problem() -> None:
    found = judged(FINE, KEPT, problems=("the model's outputs changed ('y')",))
    assert found.mark is Mark.FAILED and len(found.problems) == 1


@pytest.mark.parametrize("quality", [LOST, Quality((Deviation("y", 0.2, 0.2),), samples=8, inputs="noise")])
def test_a_limit_on_the_error_holds_beside_it(quality: Quality) -> None:
    found = judged(quality, KEPT, Limit(0.1, given=True, parameter="max_error=0.1"))
    assert found.mark is Mark.FAILED and "breaks `max_error=0.1`" in found.problems[-1]


def test_it_may_be_all_that_was_measured() -> None:
    failed = (ProviderCheck("CPUExecutionProvider", Status.FAILED, "original: no", None, None, ()),)
    assert judged(None, KEPT, providers=failed).mark is Mark.KEPT
    assert "nothing was measured" in judged(None, TOLD, providers=failed).problems[0]
