"""Where samples come from decides what they are used for; the sentence that the user reads decides nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onnxfold.calibration.collect import given_up
from onnxfold.calibration.judge import Judge
from onnxfold.calibration.origin import Origin
from onnxfold.calibration.samples import Samples
from onnxfold.options.choices import Method, Recovery

NOBODY = Judge((), "nothing", True)


def test_every_origin_has_a_text_of_its_own() -> None:
    texts = [origin.text for origin in Origin]
    assert all(texts) and len(set(texts)) == len(texts)


@pytest.mark.parametrize("origin", Origin)
def test_what_samples_are_good_for(origin: Origin) -> None:
    some = Samples((), NOBODY, origin, origin.text)
    assert some.own == (origin is Origin.OWN)
    assert some.trusted == (origin is not Origin.RANDOM)
    assert some.faithful == (origin is not Origin.CLASS_SPREAD)


def test_the_description_decides_nothing() -> None:
    own = Samples((), NOBODY, Origin.OWN, Origin.RANDOM.text)
    noise = Samples((), NOBODY, Origin.RANDOM, "128 samples of calib.npz")
    assert own.trusted and own.own and not noise.trusted and not noise.own
    assert replace(own, described=Origin.CLASS_SPREAD.text).faithful


def test_samples_that_the_model_cannot_be_walked_with_decide_nothing() -> None:
    own = Samples((), NOBODY, Origin.OWN, "3 samples")
    left = given_up(own, ValueError("no kernel"), Method.AUTO, Recovery.AUTO)
    assert not left.trusted and left.own and "no kernel" in left.notes[0]
