"""Lines of text: for which models, how they are drawn, and that others judge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn_lines import reader

from onnxfold.calibration.judge import LINES
from onnxfold.calibration.origin import Origin
from onnxfold.calibration.samples import Samples, synthetic_extent, synthetic_samples
from onnxfold.calibration.synthetic.drawn_text import FITTED, JUDGING, Look, lines, with_text
from onnxfold.calibration.synthetic.image_ops import is_line
from onnxfold.model.model import load
from onnxfold.options.choices import Effort
from onnxfold.runtime.session import Session


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        ((1, 3, 48, 320), True), ((1, 48, 320, 3), True), ((1, 3, 64, 320), True), ((1, 3, 65, 320), False),
        ((1, 3, 48, 144), False), ((1, 1, 48, 320), False), ((1, 48), False),
    ],
)  # fmt: skip
def test_what_is_a_line(shape: tuple[int, ...], line: bool) -> None:
    assert is_line(shape) is line


@pytest.mark.parametrize("look", [FITTED, JUDGING], ids=["fitted", "judging"])
def test_text_is_on_every_picture(look: Look) -> None:
    pictures = np.full((12, 48, 320, 3), 100, np.float32)
    quiet = replace(look, noise=(0.0, 0.0))
    made, again = (with_text(np.random.default_rng(2), pictures, quiet) for _ in range(2))
    assert made.shape == pictures.shape and (made == again).all() and made.min() >= 0 and made.max() <= 255
    inked = [float(np.mean(np.abs(one.mean(axis=2) - 100) > 50)) for one in made]
    assert min(inked) > 0.003 and max(inked) < 0.6, "some of it is ink"
    assert np.abs(made[0] - made[1]).mean() > 5, "other words"


def test_lines_that_judge_are_noisier_and_in_another_font() -> None:
    pictures = np.full((32, 48, 320, 3), 100, np.float32)
    clean = [Look(look.sharp, 0.0, (0.0, 0.0)) for look in (FITTED, JUDGING)]
    fitted, judging = (with_text(np.random.default_rng(2), pictures, look) for look in clean)
    assert not np.array_equal(fitted, judging)
    rows = [np.flatnonzero(np.abs(one.mean(axis=2) - 100).max(axis=1) > 50) for one in (*fitted, *judging)]
    heights = [float(np.median([len(r) for r in part])) for part in (rows[:32], rows[32:])]
    assert 0.6 < heights[1] / heights[0] < 1.6, "letters of about the same height"
    noise = [with_text(np.random.default_rng(2), pictures, look)[:, 0].std(axis=1).mean() for look in (FITTED, JUDGING)]
    assert noise[1] > 1.3 * noise[0]


def test_a_reader_of_text_gets_lines_and_is_judged_by_others() -> None:
    model = load(reader())
    samples = synthetic_samples(model, Effort.BALANCED, 0, None)
    assert samples.origin is Origin.LINES and samples.out_of_domain and samples.trusted
    assert sum(len(feeds["x"]) for feeds in samples.fit) == synthetic_extent(model, Effort.BALANCED, None).photographs
    assert samples.judge.described == LINES and samples.judge.independent


@pytest.mark.parametrize(("shape", "characters"), [("N,3,64,64", 12), ("N,3,32,128", 4), ("N,1,32,128", 12)])
def test_other_models_get_none(shape: str, characters: int) -> None:
    model = load(reader(shape, characters))
    assert lines(model, Session.of(model).inputs, 4, 0, {}) is None


def test_the_same_for_a_seed_and_another_for_another() -> None:
    model = load(reader())
    specs = Session.of(model).inputs
    one, again, other = (lines(model, specs, 4, seed, {}) for seed in (1, 1, 2))
    assert one is not None and again is not None and other is not None and not one[1]
    assert one[0].shape == (4, 3, 32, 128) and one[0].dtype == np.float32
    assert np.array_equal(one[0], again[0]) and not np.array_equal(one[0], other[0])


def test_one_at_a_time_where_the_model_takes_no_more() -> None:
    model = load(reader(fixed=True))
    samples: Samples = synthetic_samples(model, Effort.BALANCED, 0, None)
    assert samples.origin is Origin.LINES and samples.apart and {len(feeds["x"]) for feeds in samples.fit} == {1}
