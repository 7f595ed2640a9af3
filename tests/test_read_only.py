"""Arrays inside frozen types cannot be written: a stage that changed what others share would change their results."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import MODELS

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.extract import gather
from onnxfold.folding.kmeans import ClusterSettings
from onnxfold.folding.merge import folding, pruning
from onnxfold.frozen import read_only
from onnxfold.model.model import load
from onnxfold.options.choices import Clusterer, Method
from onnxfold.planning.merge_task import MergeTask, run


@dataclasses.dataclass(frozen=True)
class Held:
    """What a frozen type may hold."""

    array: NDArray[Any]
    by_name: Mapping[str, NDArray[Any]] = dataclasses.field(default_factory=dict)
    several: tuple[NDArray[Any], ...] = ()
    apart: list[dict[str, NDArray[Any]]] = dataclasses.field(default_factory=list)
    other: object = None

    def __post_init__(self) -> None:
        read_only(self)


def arrays(value: object) -> Iterator[NDArray[Any]]:
    """All arrays in a frozen type, at any depth."""
    if isinstance(value, np.ndarray):
        yield value
    elif dataclasses.is_dataclass(value):
        yield from arrays([getattr(value, field.name) for field in dataclasses.fields(value)])
    elif isinstance(value, Mapping):
        yield from arrays(list(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from arrays(part)


def cannot_be_written(value: object, at_least: int) -> None:
    found = list(arrays(value))
    assert len(found) >= at_least
    for array in found:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_arrays_anywhere_in_it() -> None:
    def one() -> NDArray[Any]:
        return np.ones(3)

    cannot_be_written(Held(one(), {"a": one()}, (one(), one()), [{"b": one()}]), 5)
    cannot_be_written(Held(one(), MappingProxyType({"a": one()}), other=(("deep", [one()]),)), 3)


def test_nothing_is_copied_and_its_maker_may_write_on() -> None:
    mine = np.zeros(3)
    held = Held(mine, {"a": mine}, (mine,))
    mine[1] = 5
    assert held.array[1] == held.by_name["a"][1] == held.several[0][1] == 5
    assert all(np.shares_memory(mine, array) for array in arrays(held))


def test_what_cannot_be_written_stays_itself(tmp_path: Path) -> None:
    """Views of views of views would pile up; an array in a file stays one."""
    path = tmp_path / "x.npy"
    np.save(path, np.arange(4))
    stored = np.load(path, mmap_mode="r")
    first = Held(stored, {"a": stored}, (stored,))
    again = dataclasses.replace(first, other="more")
    assert first.array is stored and again.by_name is first.by_name and again.several is first.several
    written = Held(np.load(path, mmap_mode="r+"))
    assert isinstance(written.array, np.memmap)
    cannot_be_written(written, 1)


@pytest.mark.parametrize("name", ["digits_resnet_bn", "digits_mobilenet", "digits_mlp"])
def test_an_analysis(name: str) -> None:
    found = analyze(load(MODELS / f"{name}.onnx"))
    cannot_be_written(found, 4 * len(found.groups))
    for group in found.groups:
        cannot_be_written(group, 3 + len(group.places))


def test_merges() -> None:
    labels, factors = np.array([0, 0, 1, 2]), np.ones(3)
    for merge in (folding(labels), pruning(np.array([0, 2]), 4)):
        cannot_be_written(merge, 2)
    scaled = folding(labels).scaled("w", factors)
    cannot_be_written(scaled, 3)
    labels[0], factors[0] = 7, 7  # those that were given stay their owner's


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_tasks_and_outcomes_that_came_from_elsewhere(protocol: int) -> None:
    model = load(MODELS / "digits_resnet_bn.onnx")
    analysis = analyze(model)
    weights = gather(model, analysis, analysis.groups[0])
    settings = ClusterSettings(Clusterer.NATIVE, seed=0, threads=1)
    cells = np.zeros(weights.size, np.int64)
    given = MergeTask("a", weights.size // 2, weights, cells, Method.FOLD, settings, repair=True, fused=True)
    task = pickle.loads(pickle.dumps(given, protocol))
    cannot_be_written(task, 5)
    outcome = run(task)
    assert outcome.normalized and outcome.fused
    for one in (outcome, pickle.loads(pickle.dumps(outcome, protocol))):
        cannot_be_written(one, 3)
        np.testing.assert_array_equal(one.labels, run(given).labels)
        cannot_be_written(one.repaired(True), 3)
