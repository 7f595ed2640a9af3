"""Merging groups by their weights: outcomes are remembered, and do not depend on which way they were asked for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import MODELS

from onnxfold.analysis.analyze import analyze
from onnxfold.folding.kmeans import ClusterSettings, ward_curve
from onnxfold.folding.merge import Merge
from onnxfold.model.model import load
from onnxfold.options.choices import Clusterer, Method
from onnxfold.planning import merger as module
from onnxfold.planning.merge_task import MergeOutcome, MergeTask
from onnxfold.planning.merger import Merger
from onnxfold.planning.weight_features import cluster_curve
from onnxfold.progress import silent

BN, FUSED = "digits_resnet_bn", "digits_resnet_fused"


def merger(name: str, streamed: bool = False) -> Merger:
    loaded = load(MODELS / f"{name}.onnx")
    return Merger(loaded, analyze(loaded), streamed=streamed)


def halves(work: Merger) -> dict[str, int]:
    return {group.name: group.size // 2 for group in work.analysis.groups}


def same(one: Merge, other: Merge) -> bool:
    scales = all(np.array_equal(one.scales[name], other.scales[name]) for name in one.scales)
    return np.array_equal(one.labels, other.labels) and one.scales.keys() == other.scales.keys() and scales


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The groups of the tasks that ran."""
    names, run = list[str](), module.run

    def noted(task: MergeTask) -> MergeOutcome:
        names.append(task.name)
        return run(task)

    monkeypatch.setattr(module, "run", noted)
    return names


@pytest.mark.parametrize("name", [BN, FUSED])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_task_repairs_as_the_parts_do(name: str, fused: bool, streamed: bool) -> None:
    """Also the correction that tasks of streamed models leave out."""
    work, corrected = merger(name, streamed), 0
    for group, keep in halves(work).items():
        found = work.recovered(group, keep, fused)
        assert same(found, work.repair(group, work.merge(group, keep), fused))
        corrected += len(found.scales)
    assert (corrected > 0) == (fused or name == BN)


def test_what_was_prepared_is_not_merged_again(ran: list[str]) -> None:
    work = merger(BN)
    keep = halves(work)
    work.prepare(keep, True, silent)
    assert sorted(ran) == sorted(keep)
    merges = {name: work.recovered(name, k) for name, k in keep.items()}
    for name, k in keep.items():
        plain = work.merge(name, k)
        assert np.array_equal(plain.labels, merges[name].labels) and not plain.scales
    assert all(0 < work.relative_error(name, merge) < 1 for name, merge in merges.items())
    work.prepare(keep, False, silent)
    assert len(ran) == len(keep)
    work.prepare({name: k - 1 for name, k in keep.items()}, False, silent)
    assert len(ran) == 2 * len(keep)


def test_a_plain_merge_is_repaired_when_that_is_asked_for(ran: list[str]) -> None:
    work = merger(BN)
    (name, keep), *_ = halves(work).items()
    plain = work.merge(name, keep)
    work.prepare({name: keep}, True, silent)
    assert ran == [name, name] and not plain.scales
    assert work.recovered(name, keep).scales and len(ran) == 2


def test_the_relative_error_of_another_merge() -> None:
    """One that no task made: the error of one channel for all comes from the features."""
    work, other = merger(BN), merger(BN)
    (name, keep), *_ = halves(work).items()
    assert work.relative_error(name, other.merge(name, keep)) == other.relative_error(name, other.merge(name, keep))


def gram(n: int, seed: int = 0) -> NDArray[np.float64]:
    points = np.random.default_rng(seed).standard_normal((n, 5))
    return np.asarray(points @ points.T)


def test_curves_of_equal_cells_add_up() -> None:
    cells = np.array([0, 1, 1, 0, 0, 1])
    whole = gram(6)
    found = cluster_curve(whole, cells)
    parts = [ward_curve(whole[np.ix_(cells == c, cells == c)]) for c in (0, 1)]
    assert np.isnan(found[[0, 1, 3, 5]]).all()
    np.testing.assert_allclose(found[[2, 4, 6]], (parts[0] + parts[1])[1:])
    np.testing.assert_array_equal(cluster_curve(whole, None), ward_curve(whole))


def test_settings_reach_the_clusters() -> None:
    loaded = load(MODELS / f"{BN}.onnx")
    work = Merger(loaded, analyze(loaded), Method.FOLD, ClusterSettings(Clusterer.SKLEARN, seed=3))
    name = work.analysis.groups[0].name
    assert work.clusters(name, gram(16, 1), 4).clusterer == "sklearn"
