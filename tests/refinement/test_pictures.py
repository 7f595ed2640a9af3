"""Pictures of random shapes beside images made by descent, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxfold.refinement.pictures import beside
from onnxfold.samples import Samples
from onnxfold.synthetic.leaves import KIND

Array = np.ndarray[Any, Any]


def samples(x: Array, **more: Any) -> Samples:
    """`x` in feeds of 16, made by descent unless `more` says something else."""
    feeds = tuple({"x": x[i : i + 16]} for i in range(0, len(x), 16))
    return Samples(**{"fit": feeds, "check": feeds[:1], "described": "made", "trusted": True, "faithful": True, **more})


def pictures(given: Samples, seed: int) -> Any:
    """For a model that errs as much on them as on images."""
    return beside(given, lambda _: 1.0, 1.0, seed)


def images(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("shape", "over"), [((32, 3, 16, 16), (0, 2, 3)), ((32, 16, 16, 3), (0, 1, 2))])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_three_pictures_for_every_image(shape: tuple[int, ...], over: tuple[int, ...], kind: Any) -> None:
    """With the level and the contrast of the images in every channel, in feeds of the same size and type."""
    level = np.array([3.0, -1.0, 0.5]).reshape([3 if axis not in over else 1 for axis in range(4)])
    before = samples((images(*shape) * level + level).astype(kind))
    added = [feed["x"] for feed in pictures(before, 0)]
    assert {x.shape for x in added} == {before.fit[0]["x"].shape} and {x.dtype for x in added} == {np.dtype(kind)}
    made, given = (
        np.concatenate([np.asarray(x, np.float64) for x in part]) for part in (added, [f["x"] for f in before.fit])
    )
    assert len(made) == 3 * shape[0]
    for measure in (np.mean, np.std):
        np.testing.assert_allclose(
            measure(made, axis=over), measure(given, axis=over), atol=0.01
        )  # float16 has 11 bits
    assert abs(np.diff(made, axis=3 if over == (0, 2, 3) else 2)).mean() < 0.5 * abs(level).mean(), "areas are even"


def test_the_seed_decides() -> None:
    x = samples(images(16, 3, 16, 16))
    one, same, other = (pictures(x, seed)[-1]["x"] for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("x", "more"),
    [
        (images(32, 3, 16, 16), {"own": True}),
        (images(32, 3, 16, 16), {"described": KIND}),
        (images(32, 5, 16, 16), {}),
        (images(32, 7), {}),
        (np.zeros((32, 3, 16, 16), np.int64), {}),
    ],
    ids=["the user's own", "pictures already", "no colours", "no images", "integers"],
)
def test_none_beside(x: Array, more: dict[str, Any]) -> None:
    assert pictures(samples(x, **more), 0) == ()


@pytest.mark.parametrize(("error", "taken"), [(0.9, 96), (1.0, 96), (1.2, 0), (float("nan"), 0)])
def test_only_where_the_model_errs_no_more_on_them(error: float, taken: int) -> None:
    """Asked on 64, before the others are drawn."""
    asked: list[int] = []

    def measured(feeds: Any) -> float:
        asked.append(sum(len(feed["x"]) for feed in feeds))
        return error

    found = beside(samples(images(32, 3, 16, 16)), measured, 1.0, 0)
    assert sum(len(feed["x"]) for feed in found) == taken and asked == [64]


def test_feeds_are_whole() -> None:
    """Of a model that takes 48 samples and no other number."""
    feed = {"x": images(48, 3, 8, 8)}
    given = Samples((feed, feed), (feed,), "made", True, True)
    asked: list[int] = []
    found = beside(given, lambda feeds: asked.extend(len(feed["x"]) for feed in feeds) or 1.0, 1.0, 0)
    assert asked == [48] and [len(feed["x"]) for feed in found] == [48] * 6
