"""Clustering: against brute force, against scikit-learn, and on nasty inputs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxfold.errors import ModelError, OnnxFoldError, PlanError
from onnxfold.folding._native import NAME
from onnxfold.folding._native import core as _core
from onnxfold.folding.gram import gram
from onnxfold.folding.kmeans import Assignment, ClusterSettings, canonical, cluster, inertia, ward_curve
from onnxfold.options.choices import Clusterer

EXACT_RTOL = 1e-10  # float64, sums in another order; measured 4e-15
SINGLE_RTOL = 1e-6  # of the trace: float32 products of at most 1,024 terms; measured 2e-8
SKLEARN_RTOL = 1e-9  # scikit-learn's own rounding, should both find the same clusters
DUPLICATE_RTOL = 1e-12  # BLAS may round inner products of equal rows differently; measured 2e-16 of the trace


def features(n: int, d: int, seed: int) -> NDArray[np.float64]:
    """Overlapping clusters with a decaying spectrum, like rows of a weight matrix."""
    random = np.random.default_rng(seed)
    centers = random.normal(size=(max(1, n // 3), d))
    points = centers[random.integers(0, len(centers), n)] + random.normal(size=(n, d))
    return points * np.arange(1, d + 1) ** -0.35


def inertia_of(points: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """From the definition: squared distances to the means."""
    return float(sum(((points[labels == c] - points[labels == c].mean(axis=0)) ** 2).sum() for c in set(labels)))


def partitions(n: int, k: int) -> list[NDArray[np.int64]]:
    """All ways to put n points into exactly k clusters, each once."""
    every = (np.array(labels, dtype=np.int64) for labels in itertools.product(range(k), repeat=n))
    return [labels for labels in every if labels.max() == k - 1 and np.array_equal(labels, canonical(labels))]


def cut(left: NDArray[np.int32], right: NDArray[np.int32], k: int) -> NDArray[np.int64]:
    """Labels after the first n - k merges."""
    n = len(left) + 1
    labels = np.arange(n)
    for a, b in zip(left[: n - k], right[: n - k], strict=True):
        labels[labels == labels[b]] = labels[a]
    return canonical(labels)


class TestCanonical:
    def test_numbers_by_first_member(self) -> None:
        assert canonical(np.array([7, -3, 7, 5, -3])).tolist() == [0, 1, 0, 2, 1]

    def test_is_its_own_fixed_point(self) -> None:
        labels = canonical(np.random.default_rng(0).integers(0, 9, 50))
        assert np.array_equal(labels, canonical(labels))


class TestAssignment:
    def test_labels_cannot_be_changed(self) -> None:
        mine = np.array([0, 1, 0])
        made = Assignment(mine, 2, 1.0, "by hand")
        with pytest.raises(ValueError, match="read-only"):
            made.labels[0] = 1
        mine[0] = 1
        assert made.labels.tolist() == [0, 1, 0]

    @pytest.mark.parametrize(
        ("labels", "k", "cost", "message"),
        [
            (np.array([1, 0]), 2, 0.0, "first member"),
            (np.array([0, 2]), 3, 0.0, "first member"),
            (np.array([0, 1]), 3, 0.0, "name 2 clusters, but k is 3"),
            (np.array([0, 0], dtype=np.int32), 1, 0.0, "int64"),
            (np.array([[0]]), 1, 0.0, r"shape \[1, 1\]"),
            (np.array([], dtype=np.int64), 1, 0.0, "name 0 clusters"),
            (np.array([0]), 1, -1.0, "inertia"),
            (np.array([0]), 1, float("nan"), "inertia"),
        ],
    )
    def test_refuses_what_does_not_fit(self, labels: NDArray[np.int64], k: int, cost: float, message: str) -> None:
        with pytest.raises(PlanError, match=message):
            Assignment(labels, k, cost, "by hand")


class TestGram:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_is_the_sum_of_centered_products(self, dtype: type, order: str) -> None:
        parts = [np.asarray(features(13, d, d), dtype=dtype, order=order) for d in (1, 40, 7)]  # type: ignore[call-overload]
        whole = np.concatenate([part.astype(np.float64) for part in parts], axis=1)
        whole -= whole.mean(axis=0)
        made = gram(parts)
        assert made.dtype == np.float64
        assert made.flags.c_contiguous
        assert np.array_equal(made, made.T)
        tolerance = EXACT_RTOL if dtype is np.float64 else SINGLE_RTOL
        np.testing.assert_allclose(made, whole @ whole.T, rtol=0, atol=tolerance * np.trace(made))

    def test_column_blocks_make_no_difference(self, monkeypatch: pytest.MonkeyPatch) -> None:
        points = features(10, 57, 0)
        whole = gram([points])
        monkeypatch.setattr("onnxfold.folding.gram._BLOCK_ENTRIES", 100)
        np.testing.assert_allclose(gram([points]), whole, rtol=0, atol=EXACT_RTOL * np.trace(whole))

    def test_single_precision_sums_stay_short(self) -> None:
        points = np.full((4, 100_000), 0.1, np.float32) + features(4, 100_000, 0).astype(np.float32)
        exact = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(gram([points]), exact @ exact.T, rtol=0, atol=SINGLE_RTOL * np.square(exact).sum())

    def test_leaves_the_features_alone(self) -> None:
        points = features(5, 4, 0)
        before = points.copy()
        gram([points])
        assert np.array_equal(points, before)

    def test_no_features_is_no_distance(self) -> None:
        assert np.array_equal(gram([np.empty((3, 0))]), np.zeros((3, 3)))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_names_the_bad_value(self, bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("onnxfold.folding.gram._BLOCK_ENTRIES", 40)  # the second block of columns
        points = features(8, 9, 0).astype(np.float32)
        points[3, 7] = bad
        with pytest.raises(ModelError, match=f"part 1 of the features has {bad} at row 3, column 7"):
            gram([features(8, 2, 0), points])

    def test_refuses_values_that_overflow(self) -> None:
        with pytest.raises(ModelError, match="part 0 of the features has values too large to add up in column 1"):
            gram([np.array([[0.0, 1e308], [0.0, 1e308]])])

    @pytest.mark.parametrize(
        "parts",
        [[], [np.zeros(3)], [np.zeros((3, 2)), np.zeros((4, 2))], [np.zeros((0, 2))], [np.zeros((2, 2), complex)]],
    )
    def test_refuses_other_shapes(self, parts: list[NDArray[np.float64]]) -> None:
        with pytest.raises(PlanError):
            gram(parts)


class TestCluster:
    @pytest.mark.parametrize("d", [1, 3])
    @pytest.mark.parametrize(("n", "k"), [(4, 2), (6, 3), (7, 2), (7, 5), (8, 3), (8, 4)])
    def test_finds_the_optimum(self, n: int, k: int, d: int) -> None:
        points = features(n, d, n + k)
        optimum = min(inertia_of(points, labels) for labels in partitions(n, k))
        found = cluster(gram([points]), k)
        assert found.inertia == pytest.approx(optimum, rel=EXACT_RTOL)
        assert inertia_of(points, found.labels) == pytest.approx(optimum, rel=EXACT_RTOL)

    @pytest.mark.parametrize(
        ("n", "d", "k"), [(64, 144, 32), (96, 20, 8), (128, 300, 96), (200, 3, 20), (256, 64, 128), (150, 1, 12)]
    )
    def test_is_no_worse_than_scikit_learn(self, n: int, d: int, k: int) -> None:
        from sklearn.cluster import KMeans

        points = features(n, d, n)
        reference = KMeans(k, n_init=10, random_state=0).fit(points).inertia_
        found = cluster(gram([points]), k)
        assert found.inertia <= reference * (1 + SKLEARN_RTOL)
        assert inertia_of(points, found.labels) == pytest.approx(found.inertia, rel=EXACT_RTOL)

    def test_a_rotation_changes_nothing(self) -> None:
        points = features(60, 25, 1)
        rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(25, 25)))
        before, after = cluster(gram([points]), 20), cluster(gram([points @ rotation + 3.0]), 20)
        assert np.array_equal(before.labels, after.labels)
        assert after.inertia == pytest.approx(before.inertia, rel=EXACT_RTOL)

    def test_the_number_of_threads_changes_nothing(self) -> None:
        matrix = gram([features(120, 30, 3)])
        one, *others = (cluster(matrix, 40, ClusterSettings(restarts=5, threads=threads)) for threads in (1, 2, 4, 0))
        for other in others:
            assert np.array_equal(one.labels, other.labels)
            assert one.inertia == other.inertia

    def test_more_work_is_never_worse_and_does_help(self) -> None:
        matrix = gram([features(150, 20, 4)])
        costs = [cluster(matrix, 50, ClusterSettings(perturbations=count)).inertia for count in (0, 20, 600)]
        assert costs == sorted(costs, reverse=True)
        assert costs[-1] < costs[0]

    def test_duplicates_are_folded_exactly(self) -> None:
        points = features(40, 30, 5)
        matrix = gram([np.concatenate([points, points[::-1]])])
        found = cluster(matrix, 40)
        assert np.array_equal(found.labels, found.labels[::-1])
        assert found.inertia <= DUPLICATE_RTOL * np.trace(matrix)

    @pytest.mark.parametrize("k", [1, 2, 5, 9])
    def test_equal_points_fill_every_cluster(self, k: int) -> None:
        found = cluster(gram([np.full((9, 4), 0.3)]), k)
        assert np.unique(found.labels).tolist() == list(range(k))
        assert found.inertia == 0.0

    def test_the_extremes(self) -> None:
        points = features(11, 3, 6)
        matrix = gram([points])
        each, one = cluster(matrix, 11), cluster(matrix, 1)
        assert each.labels.tolist() == list(range(11))
        assert each.inertia == 0.0
        assert one.labels.tolist() == [0] * 11
        assert one.inertia == pytest.approx(inertia_of(points, one.labels), rel=EXACT_RTOL)
        assert cluster(np.zeros((1, 1)), 1).labels.tolist() == [0]

    def test_reads_other_layouts(self) -> None:
        wide = np.zeros((40, 80))
        wide[:, ::2] = gram([features(40, 9, 7)])
        strided = wide[:, ::2]
        expected = cluster(np.ascontiguousarray(strided), 9)
        assert np.array_equal(cluster(strided, 9).labels, expected.labels)

    @pytest.mark.parametrize("clusterer", Clusterer)
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_names_the_bad_value(self, clusterer: Clusterer, bad: float) -> None:
        matrix = gram([features(7, 3, 8)])
        matrix[3, 5] = bad
        with pytest.raises(PlanError, match=f"Gram matrix has {bad} at row 3, column 5"):
            cluster(matrix, 2, ClusterSettings(clusterer))

    @pytest.mark.parametrize("k", [-1, 0, 8])
    def test_refuses_a_k_that_cannot_be(self, k: int) -> None:
        with pytest.raises(OnnxFoldError, match=f"cannot make {k} clusters of 7 points: k must be between 1 and 7"):
            cluster(np.eye(7), k)

    @pytest.mark.parametrize("shape", [(2, 3), (0, 0), (4,)])
    def test_refuses_what_is_not_square(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(PlanError, match="square"):
            cluster(np.zeros(shape), 1)

    @pytest.mark.parametrize(
        ("option", "value"),
        [("restarts", 0), ("restarts", -1), ("sweeps", -1), ("perturbations", -1), ("threads", -1), ("seed", -1)],
    )
    def test_refuses_options_that_make_no_sense(self, option: str, value: int) -> None:
        with pytest.raises(PlanError, match=option):
            cluster(np.eye(4), 2, ClusterSettings(**{option: value}))  # type: ignore[arg-type]


class TestBlocks:
    def test_clusters_stay_within_blocks_and_are_shared_equally(self) -> None:
        matrix = gram([features(60, 10, 9)])
        blocks = np.random.default_rng(1).permutation(np.repeat([4, 0, 7], 20))
        found = cluster(matrix, 24, blocks=blocks)
        for block in (0, 4, 7):
            assert len(np.unique(found.labels[blocks == block])) == 8
        for c in range(24):
            assert len(np.unique(blocks[found.labels == c])) == 1

    def test_each_block_is_clustered_on_its_own(self) -> None:
        points = features(40, 10, 10)
        matrix = gram([points])
        blocks = np.arange(40) % 2
        found = cluster(matrix, 12, blocks=blocks)
        for block in (0, 1):
            alone = cluster(gram([points[blocks == block]]), 6)
            assert np.array_equal(canonical(found.labels[blocks == block]), alone.labels)
        assert found.inertia == pytest.approx(inertia_of(points, found.labels), rel=EXACT_RTOL)

    @pytest.mark.parametrize(
        ("blocks", "k", "message"),
        [
            ([0, 0, 0, 1], 2, r"sizes are \[3, 1\]"),
            ([0, 0, 1, 1], 3, "cannot share 3 clusters among 2 blocks"),
            ([0, 0], 2, "each of the 4 points"),
        ],
    )
    def test_refuses_what_cannot_be_shared(self, blocks: list[int], k: int, message: str) -> None:
        with pytest.raises(PlanError, match=message):
            cluster(np.eye(4), k, blocks=np.array(blocks))


class TestSklearn:
    def test_agrees_where_the_answer_is_plain(self) -> None:
        centers = 100.0 * np.eye(5)
        points = centers[np.arange(30) % 5] + features(30, 5, 11)
        native, reference = (cluster(gram([points]), 5, ClusterSettings(which)) for which in Clusterer)
        assert np.array_equal(native.labels, reference.labels)
        assert reference.inertia == pytest.approx(native.inertia, rel=SKLEARN_RTOL)
        assert (native.clusterer, reference.clusterer) == ("native", "sklearn")

    def test_clusters_the_points_the_matrix_stands_for(self) -> None:
        points = features(50, 8, 12)
        found = cluster(gram([points]), 10, ClusterSettings(Clusterer.SKLEARN), blocks=np.arange(50) // 25)
        assert found.inertia == pytest.approx(inertia_of(points, found.labels), rel=EXACT_RTOL)

    def test_refuses_a_seed_it_cannot_take(self) -> None:
        with pytest.raises(PlanError, match="seed must be between 0 and 4294967295"):
            ClusterSettings(Clusterer.SKLEARN, seed=2**32)


class TestWardCurve:
    def test_is_the_inertia_of_every_cut(self) -> None:
        points = features(90, 12, 13)
        matrix = gram([points])
        curve = ward_curve(matrix)
        left, right, _ = _core.ward(matrix)
        assert curve.shape == (91,)
        assert np.isnan(curve[0])
        for k in range(1, 91):
            labels = cut(left, right, k)
            assert labels.max() == k - 1
            assert curve[k] == pytest.approx(inertia_of(points, labels), rel=EXACT_RTOL, abs=0.0)
        assert (np.diff(curve[1:]) <= 0.0).all()

    def test_bounds_what_clustering_reaches(self) -> None:
        matrix = gram([features(70, 12, 14)])
        curve = ward_curve(matrix)
        for k in (2, 10, 35, 60):
            assert cluster(matrix, k).inertia <= curve[k] * (1 + EXACT_RTOL)

    def test_agrees_with_scipy(self) -> None:
        from scipy.cluster.hierarchy import linkage

        points = features(80, 10, 15)
        _, _, heights = _core.ward(gram([points]))
        np.testing.assert_allclose(heights, linkage(points, "ward")[:, 2] ** 2 / 2, rtol=EXACT_RTOL)

    def test_one_point(self) -> None:
        curve = ward_curve(np.ones((1, 1)))
        assert np.isnan(curve[0])
        assert curve[1:].tolist() == [0.0]

    def test_names_the_bad_value(self) -> None:
        matrix = np.eye(4)
        matrix[2, 1] = np.nan
        with pytest.raises(PlanError, match="Gram matrix has nan at row 2, column 1"):
            ward_curve(matrix)


class TestInertia:
    def test_is_its_definition(self) -> None:
        points = features(30, 6, 16)
        labels = canonical(np.random.default_rng(3).integers(0, 7, 30))
        assert inertia(gram([points]), labels) == pytest.approx(inertia_of(points, labels), rel=EXACT_RTOL)


@pytest.mark.skipif(NAME != "C++", reason="no compiled core here")
class TestBindings:
    """The compiled module copies and converts nothing behind the caller's back."""

    @pytest.mark.parametrize(
        ("matrix", "error", "message"),
        [
            (np.eye(4, dtype=np.float16), TypeError, "gram must be float64 or float32, not float16"),
            (np.eye(4, dtype=">f8"), TypeError, "gram must be float64"),
            (np.arange(16.0).reshape(4, 4).T, ValueError, "C-contiguous"),
            (np.eye(8)[::2, ::2], ValueError, "C-contiguous"),
            (np.ones((2, 3)), ValueError, r"square matrix, not of shape \(2, 3\)"),
            (np.ones(4), ValueError, "square matrix"),
            (np.ones((0, 0)), ValueError, "empty"),
            ([[1.0]], TypeError, "incompatible function arguments"),
        ],
    )
    def test_refuses_other_arrays(self, matrix: NDArray[np.float64], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            _core.cluster(matrix, 1, 0, 1, 1, 0, 1)
        with pytest.raises(error, match=message):
            _core.ward(matrix)

    def test_float32_is_clustered_as_it_is(self) -> None:
        matrix = gram([features(90, 20, 5)])
        exact, single = cluster(matrix, 30), cluster(matrix.astype(np.float32), 30)
        assert single.inertia == pytest.approx(exact.inertia, rel=1e-3)  # near ties may fall the other way
        assert single.inertia == pytest.approx(inertia(matrix, single.labels), rel=SINGLE_RTOL * 10)
        curve = ward_curve(matrix.astype(np.float32))
        assert curve[1:] == pytest.approx(ward_curve(matrix)[1:], rel=1e-4, abs=1e-4)

    def test_types_and_shapes(self) -> None:
        matrix = gram([features(9, 3, 17)])
        labels, cost, sweeps = _core.cluster(matrix, 4, 0, 2, 100, 10, 1)
        assert labels.dtype == np.int32
        assert labels.shape == (9,)
        assert cost > 0.0
        assert sweeps >= 1
        left, right, height = _core.ward(matrix)
        assert left.dtype == right.dtype == np.int32
        assert height.dtype == np.float64
        assert left.shape == right.shape == height.shape == (8,)
        assert (left < right).all()
