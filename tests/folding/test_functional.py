"""What channels do for their consumers, against least squares written out and channels that are made to be alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxfold.folding.functional import Functions, absorb, functional_merge, functions, linear_error
from onnxfold.folding.kmeans import cluster
from onnxfold.folding.merge import Merge, folding, pruning
from onnxfold.folding.second_order import Consumer, eliminate

EXACT_RTOL = 1e-6  # float64 against least squares on the same rows. Measured 1e-9
RIDGE = 1e-6

Floats = NDArray[np.float64]


def consumer(x: Floats, weights: Floats, width: int = 1) -> Consumer:
    """The consumer of rows `x` [rows, channels * width]."""
    moments = np.cov(x, rowvar=False, bias=True)
    columns = np.arange(x.shape[1]).reshape(-1, width)
    return Consumer(moments, weights, columns, float(np.sum((weights @ moments) * weights)))


def activations(n: int, rng: np.random.Generator, rows: int = 4000) -> Floats:
    """ReLUs of random mixtures of a few factors."""
    return np.maximum(rng.standard_normal((rows, n)) @ (np.eye(n) + 0.3 * rng.standard_normal((n, n))), 0.0)


def written_out(x: Floats, weights: Floats, makes: Floats, width: int = 1) -> float:
    """The relative error of least squares from merged activations, on the rows themselves."""
    x = x - x.mean(axis=0)
    merged = np.einsum("rcb,kc->rkb", x.reshape(len(x), -1, width), makes).reshape(len(x), -1)
    wanted = x @ weights.T
    solved = np.linalg.lstsq(merged, wanted, rcond=None)[0]
    return float(np.sum((wanted - merged @ solved) ** 2) / np.sum(wanted**2))


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("labels", [[0, 1, 0, 2, 1, 3], [0, 1, 2, 3, 4, 4]])
def test_linear_errors_are_those_of_least_squares(labels: Sequence[int], width: int) -> None:
    rng = np.random.default_rng(0)
    x, weights = activations(6 * width, rng), rng.standard_normal((4, 6 * width))
    one = consumer(x, weights, width)
    for merge in (folding(np.array(labels)), pruning(np.array([0, 2, 5]), 6)):
        wanted = written_out(x, weights, merge.for_producers.toarray(), width)
        assert linear_error([one], merge, 1e-10) == pytest.approx(wanted, rel=EXACT_RTOL)


def test_dropping_costs_what_elimination_says() -> None:
    rng = np.random.default_rng(1)
    consumers = [consumer(activations(12, rng), rng.standard_normal((5, 12)), width) for width in (2, 2)]
    found = eliminate(consumers, 1, 1e-3)
    for gone in (1, 3, 5):
        drop = pruning(np.setdiff1d(np.arange(6), found.order[:gone]), 6)
        assert linear_error(consumers, drop, 1e-3) == pytest.approx(found.errors[gone], rel=1e-6)


def test_channels_that_do_the_same_are_clustered_whatever_their_weights() -> None:
    """One is another one times a positive number, as behind a ReLU; its consumers' weights are others entirely."""
    rng = np.random.default_rng(2)
    x, weights = activations(6, rng), rng.standard_normal((8, 6))
    x[:, 4] = 1.3 * x[:, 1]
    one = consumer(x, weights)
    found = functions([one])
    assert found.likeness[1, 4] == pytest.approx(1)
    labels = cluster(found.gram, 5).labels
    assert labels[1] == labels[4] and len(set(labels)) == 5
    assert linear_error([one], functional_merge(found, labels), RIDGE) < 1e-4
    # the control: contributions to the outputs, in which the consumers' weights count, see nothing in common
    contributions = (weights.T @ weights) * one.moments
    other = cluster(contributions, 5).labels
    assert other[1] != other[4]


def test_a_channel_that_does_nothing_is_near_every_other_and_moves_none() -> None:
    rng = np.random.default_rng(3)
    x, weights = activations(5, rng), rng.standard_normal((4, 5))
    weights[:, 3] = 0
    found = functions([consumer(x, weights)])
    assert found.worth[3] == 0 and (found.gram[3] == 0).all()
    merge = functional_merge(found, np.array([0, 1, 2, 0, 3]))
    assert merge.for_producers[0, 0] > 1 - 1e-5 and merge.for_producers[0, 3] < 1e-5


def test_consumers_are_weighed_by_their_energies() -> None:
    rng = np.random.default_rng(4)
    one = consumer(activations(6, rng), rng.standard_normal((4, 6)))
    other = consumer(activations(6, rng), rng.standard_normal((3, 6)))
    quiet = Consumer(other.moments, other.weights, other.columns, other.energy * 1e12)
    np.testing.assert_allclose(functions([one, quiet]).gram, functions([one]).gram, atol=1e-9)
    assert not np.allclose(functions([one, other]).gram, functions([one]).gram, atol=1e-3)


# dropping and merging together --------------------------------------------------------------------------------------


def absorbing(x: Floats, weights: Floats, kept: Sequence[int], width: int = 1) -> tuple[Functions, Merge]:
    found = functions([consumer(x, weights, width)], remember=True)
    return found, absorb(found, np.array(kept), RIDGE)


def noisy_twins() -> tuple[Floats, Floats]:
    """Channel 5 sees what channel 1 sees, both with noise of their own; channel 4 is dead; 0, 2, 3 stand alone."""
    rng = np.random.default_rng(5)
    x = np.maximum(rng.standard_normal((20000, 6)), 0.0)
    seen = np.maximum(rng.standard_normal(20000), 0.0)
    x[:, 1], x[:, 5] = (np.maximum(seen + 0.5 * rng.standard_normal(20000), 0.0) for _ in range(2))
    x[:, 4] = 0.0
    weights = rng.standard_normal((4, 6))
    weights[:, 5] = weights[:, 1]
    return x, weights


def test_twins_are_merged_and_the_dead_dropped() -> None:
    x, weights = noisy_twins()
    found, merge = absorbing(x, weights, [0, 1, 2, 3])
    assert list(merge.labels) == [0, 1, 2, 3, -1, 1]
    assert merge.for_producers[1, 5] == pytest.approx(0.5, abs=0.02)  # both see as much
    assert merge.for_producers[1, 1] + merge.for_producers[1, 5] == pytest.approx(1)
    drop = pruning(merge.keep, 6)
    assert linear_error(found.consumers, merge, RIDGE) < 0.1 * linear_error(found.consumers, drop, RIDGE)
    merged, dropped = (written_out(x, weights, one.for_producers.toarray()) for one in (merge, drop))
    assert merged < 0.1 * dropped


def test_exact_duplicates_leave_nothing_to_merge_for() -> None:
    """Dropping one of them costs nothing once the consumers are refitted: nothing is left that merging could win."""
    x, weights = noisy_twins()
    x[:, 5] = x[:, 1]
    found, merge = absorbing(x, weights, [0, 1, 2, 3])
    assert linear_error(found.consumers, merge, RIDGE) < 1e-5
    assert linear_error(found.consumers, pruning(merge.keep, 6), RIDGE) < 1e-5


def test_channels_that_are_not_alike_are_not_merged() -> None:
    """Consumers that agree are not enough: what lies behind a nonlinearity adds up only where activations are alike."""
    x, weights = noisy_twins()
    x[:, 5] = np.random.default_rng(6).permutation(x[:, 5])
    _, merge = absorbing(x, weights, [0, 1, 2, 3])
    assert merge.labels[5] == -1


def test_opposite_consumers_do_not_merge() -> None:
    """What the outputs lack of a channel would have to be taken off a kept one: a ReLU cannot."""
    x, weights = noisy_twins()
    weights[:, 5] = -2 * weights[:, 1]
    _, merge = absorbing(x, weights, [0, 1, 2, 3])
    assert merge.labels[5] == -1


def test_cells_are_not_crossed() -> None:
    x, weights = noisy_twins()
    found = functions([consumer(x, weights)], remember=True)
    kept = np.array([0, 1, 2, 3])
    assert absorb(found, kept, RIDGE, np.array([0, 0, 0, 1, 1, 1])).labels[5] == -1
    assert absorb(found, kept, RIDGE, np.array([0, 0, 1, 1, 1, 0])).labels[5] == 1


def test_the_best_share_is_found() -> None:
    """Where the consumers weigh the twins unequally, they are averaged as unequally."""
    x, weights = noisy_twins()
    weights[:, 5] = 0.4 * weights[:, 1]
    _, merge = absorbing(x, weights, [0, 1, 2, 3])
    share = merge.for_producers[1, 5] / merge.for_producers[1, 1]
    errors = {}
    for t in (0.0, 0.2, 0.4, 0.7, 1.0, float(share)):
        makes = pruning(merge.keep, 6).for_producers.toarray()
        makes[1, 5] = t
        errors[t] = written_out(x, weights, makes)
    assert errors[float(share)] < 0.01 * errors[0.0] and min(errors[t] for t in (0.2, 0.7)) > 0.1 * errors[0.0]


def test_windows_share_one_map() -> None:
    """Channels of three columns each: one weight for the whole channel."""
    rng = np.random.default_rng(7)
    base = np.maximum(rng.standard_normal((20000, 4, 3)), 0.0)
    twin = np.maximum(base[:, 1] + 0.4 * rng.standard_normal((20000, 3)), 0.0)
    x = np.concatenate([base, twin[:, None]], axis=1).reshape(20000, -1)
    weights = rng.standard_normal((5, 15))
    weights[:, 12:] = weights[:, 3:6]
    found, merge = absorbing(x, weights, [0, 1, 2, 3], 3)
    assert merge.labels[4] == 1
    drop = pruning(merge.keep, 5)
    assert linear_error(found.consumers, merge, RIDGE) < 0.5 * linear_error(found.consumers, drop, RIDGE)


def test_a_consumer_in_parts_is_the_sum_of_its_parts() -> None:
    rng = np.random.default_rng(8)
    x, weights = activations(6, rng), np.zeros((4, 6))
    weights[:2, :3], weights[2:, 3:] = rng.standard_normal((2, 3)), rng.standard_normal((2, 3))
    moments = np.cov(x, rowvar=False, bias=True)
    moments[:3, 3:] = moments[3:, :3] = 0
    whole = Consumer(moments, weights, np.arange(6)[:, None], 1.0)
    parts = [
        Consumer(moments[:3, :3], weights[:2, :3], np.array([0, 1, 2, -1, -1, -1])[:, None], 1.0),
        Consumer(moments[3:, 3:], weights[2:, 3:], np.array([-1, -1, -1, 0, 1, 2])[:, None], 1.0),
    ]
    cells, ridge = np.repeat([0, 1], 3), 1e-9
    one, two = eliminate([whole], 2, ridge, cells), eliminate(parts, 2, ridge, cells)
    np.testing.assert_array_equal(one.order, two.order)
    np.testing.assert_allclose(one.errors, two.errors, rtol=1e-6)
    np.testing.assert_allclose(functions([whole]).worth, functions(parts).worth, rtol=1e-9)
    kept = np.array([0, 1, 3, 5])
    first, second = (absorb(functions(r, remember=True), kept, ridge, cells) for r in ([whole], parts))
    np.testing.assert_array_equal(first.labels, second.labels)
    drop = pruning(kept, 6)
    assert linear_error([whole], drop, ridge) == pytest.approx(linear_error(parts, drop, ridge), rel=1e-6)
