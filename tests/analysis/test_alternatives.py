"""Which alternatives are taken: the combination that leaves most free, without trying all of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from onnxfold.analysis import alternatives
from onnxfold.analysis.alternatives import Choice, Option, settled
from onnxfold.analysis.components import connected, distinct

Ints = NDArray[np.int64]


def by_scipy(a: Ints, b: Ints, count: int) -> Ints:
    edges = coo_matrix((np.ones(len(a)), (a, b)), shape=(count, count))
    return np.asarray(connected_components(edges, directed=False)[1], np.int64)


@pytest.mark.parametrize("seed", range(50))
def test_components_are_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, edges = int(rng.integers(1, 60)), int(rng.integers(0, 60))
    a, b = rng.integers(0, count, (2, edges))
    np.testing.assert_array_equal(connected(a, b, count), by_scipy(a, b, count))


@pytest.mark.parametrize("order", ["up", "down", "mixed", "alternating"])
def test_components_of_a_long_chain(order: str) -> None:
    """One component, however far apart its ends are."""
    chain = np.arange(2000)
    chain = {
        "up": chain, "down": chain[::-1], "mixed": np.random.default_rng(0).permutation(chain),
        "alternating": np.stack([chain[:1000], chain[:999:-1]], 1).ravel(),
    }[order]  # fmt: skip
    assert not connected(chain[:-1], chain[1:], 2000).any()
    apart = np.delete(np.arange(1999), 999)  # one link is missing
    assert sorted(np.bincount(connected(chain[apart], chain[apart + 1], 2000))) == [1000, 1000]


def test_no_things_have_no_components() -> None:
    none = np.empty(0, np.int64)
    assert len(connected(none, none, 0)) == 0 and connected(none, none, 3).tolist() == [0, 1, 2]
    assert len(distinct(none)) == 0 and distinct(np.array([5, 1, 5, 3, 1])).tolist() == [1, 3, 5]


def left(combination: tuple[Option, ...], pinned: NDArray[np.bool_], reach: Ints) -> tuple[int, int]:
    """Positions of weights and channels that stay free, from the definition."""
    a, b, pins = (np.concatenate(side) for side in zip(*((o.a, o.b, o.pins) for o in combination), strict=True))
    joined = by_scipy(a, b, len(pinned))
    free = set(joined) - set(joined[pinned]) - set(joined[pins])
    weights = [int(reach[joined == one].sum()) for one in free]
    return sum(weights), sum(weight > 0 for weight in weights)


def drawn(rng: np.random.Generator, channels: int) -> Choice:
    def some(most: int) -> Ints:
        return rng.integers(0, channels, rng.integers(0, most))

    options = []
    for _ in range(rng.integers(2, 4)):
        a = some(6)
        options.append(Option(a, rng.integers(0, channels, len(a)), some(3)))
    return tuple(options)


@pytest.mark.parametrize("seed", range(40))
def test_the_best_combination_is_taken(seed: int) -> None:
    """As good as the best of all, and the first of those that are."""
    rng = np.random.default_rng(seed)
    channels = int(rng.integers(4, 25))
    pinned, reach = rng.random(channels) < 0.1, rng.integers(0, 4, channels)
    choices = [drawn(rng, channels) for _ in range(rng.integers(1, 5))]
    best = max(
        itertools.product(*(range(len(choice)) for choice in choices)),
        key=lambda taken: left(tuple(c[i] for c, i in zip(choices, taken, strict=True)), pinned, reach),
    )
    assert alternatives._best(choices, pinned, reach) == best


def test_few_combinations_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the 4,096 combinations for 12 shuffles in a row (ShuffleNet), a few hundred beginnings."""
    calls = []
    monkeypatch.setattr(alternatives, "connected", lambda *args: calls.append(0) or connected(*args))
    count, half = 13 * 16, np.arange(8)
    choices = []
    for i in range(12):
        one, other = 16 * i + np.arange(16), 16 * (i + 1) + np.arange(16)
        shuffled = other.reshape(8, 2).T.ravel()
        choices.append((Option(one, shuffled, half[:0]), Option(one[:8], other[:8], one[8:])))
    found = settled(choices, np.zeros(count, bool), np.ones(count, np.int64))
    assert found == dict.fromkeys(range(12), 0)
    assert len(calls) < 400
