"""Consumers too wide for full moments: channel-level maps, in the refit, in the sensitivity analysis and in the
report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import model
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper
from tiny import net

import onnxfold
from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.groups import Place, Role
from onnxfold.evaluation.metrics import relative_l2
from onnxfold.folding.merge import Merge, folding, pruning
from onnxfold.model.linear import Linear, linear
from onnxfold.model.model import load
from onnxfold.options.choices import Recovery
from onnxfold.planning import sensitivity as measure_sensitivity
from onnxfold.recovery import channel_maps as pooled
from onnxfold.recovery import reconstruct as refit
from onnxfold.recovery.channel_maps import ChannelPooling, Fit, pooling_of, wide_notes
from onnxfold.recovery.least_squares import remap
from onnxfold.recovery.reconstruct import Changes, ReconstructionSettings, Refitted, reconstruct
from onnxfold.runtime.session import Session
from onnxfold.runtime.shared_prefix import SharedPrefix
from onnxfold.transform.edits import edits
from onnxfold.transform.emit import emit

REMAP_RTOL = 1e-3  # channels that are combinations of the others, float32 moments, a ridge of 1e-7. Measured under 2e-4
SOLVED_RTOL = 1e-5  # float32 products of rows against float64. Measured under 2e-6
CONTROL = 0.1  # what the plain pruned model loses at least
NARROW = 30  # inputs: the limit in these tests
SHAPE = (24, 3, 7, 7)

Array = NDArray[Any]


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pooled, refit, measure_sensitivity):
        monkeypatch.setattr(module, "MOST_FEATURES", NARROW)


CASES = {
    "Conv": (
        "(float[N,3,7,7] x) => (float y) { h = Conv (x, w, b) y = Conv <pads=[1,1,0,0]> (h, v, c) }",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "c": (5,)},
    ),
    "Conv without a bias": (
        "(float[N,3,7,7] x) => (float y) { h = Conv (x, w, b) y = Conv (h, v) }",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3)},
    ),
    "ConvTranspose": (
        "(float[N,3,7,7] x) => (float y) { h = Conv (x, w) y = ConvTranspose <strides=[2,2]> (h, v, c) }",
        {"w": (8, 3, 3, 3), "v": (8, 5, 3, 3), "c": (5,)},
    ),
    "Gemm behind a Flatten": (
        "(float[N,3,7,7] x) => (float y) { h = Conv (x, w, b) f = Flatten (h) y = Gemm <transB=1> (f, v, c) }",
        {"w": (8, 3, 5, 5), "b": (8,), "v": (5, 72), "c": (5,)},
    ),
    "MatMul of a map with channels last": (
        """(float[N,3,7,7] x) => (float y) { h = Conv (x, w) t = Transpose <perm=[0,2,3,1]> (h)
            f = Flatten (t) y = MatMul (f, v) }""",
        {"w": (8, 3, 5, 5), "v": (72, 5)},
    ),
}  # fmt: skip


def mixed(name: str) -> ModelProto:
    """The second half of the first convolution's channels are combinations of the first half."""
    proto = model(*CASES[name])
    tensors = {t.name: t for t in proto.graph.initializer}
    mixing = np.random.default_rng(5).standard_normal((4, 4)).astype(np.float32)
    for producer in {"w", "b"} & set(tensors):
        value = numpy_helper.to_array(tensors[producer]).copy()
        value[4:] = np.einsum("ij,j...->i...", mixing, value[:4])
        tensors[producer].raw_data = value.tobytes()
    return proto


def feeds(seed: int, shape: Sequence[int] = SHAPE) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(3)]


def refitted(
    proto: ModelProto, merge: Merge, level: Recovery = Recovery.LEAST_SQUARES, ridge: float = 1e-7
) -> tuple[float, float, tuple[Refitted, ...]]:
    """Errors of the plain and of the refitted model on other inputs, and what was refitted."""
    loaded = load(proto)
    analysis = analyze(loaded)
    merges = {analysis.groups[0].name: merge}
    plain, folded = (emit(loaded, edits(loaded, analysis, merges)) for _ in range(2))
    settings = ReconstructionSettings(level, ridge)
    done = reconstruct(SharedPrefix(loaded, feeds(0)), analysis, Changes(merges), folded, settings)

    def run(one: ModelProto) -> Array:
        session = Session(one.SerializeToString())
        return np.concatenate([np.asarray(session.run(f)[0]).ravel() for f in feeds(1)])

    wanted = run(proto)
    return relative_l2(wanted, run(plain)), relative_l2(wanted, run(folded)), done


@pytest.mark.parametrize("case", CASES)
def test_what_other_channels_tell_is_not_lost(case: str) -> None:
    plain, after, done = refitted(mixed(case), pruning(np.arange(4), 8))
    assert plain > CONTROL
    assert after < REMAP_RTOL
    assert [one.fit for one in done] == [Fit.CHANNELS]
    assert done[0].after < 1e-5 < CONTROL**2 < done[0].before


@pytest.mark.parametrize("case", CASES)
def test_merged_channels(case: str) -> None:
    plain, after, _ = refitted(mixed(case), folding(np.array([0, 1, 2, 3, 0, 1, 2, 3])))
    assert plain > CONTROL
    assert after < REMAP_RTOL


def test_only_a_map_between_channels_is_fitted() -> None:
    """Channels that stand in for one another at another kernel position only: full moments see that, maps do not."""
    proto = model(*CASES["Conv"])
    (narrow,) = refitted(proto, pruning(np.arange(6), 8), ridge=1e-3)[2]
    pooled.MOST_FEATURES = refit.MOST_FEATURES = 4608  # type: ignore[attr-defined]
    (full,) = refitted(proto, pruning(np.arange(6), 8), ridge=1e-3)[2]
    assert full.fit is Fit.FULL and narrow.fit is Fit.CHANNELS
    assert full.after < narrow.after < narrow.before


def test_statistics_leave_wide_consumers_alone() -> None:
    plain, after, done = refitted(mixed("Conv"), pruning(np.arange(4), 8), Recovery.STATISTICS)
    assert plain == after
    assert [one.fit for one in done] == [Fit.NONE]


def test_no_channels_to_pool() -> None:
    proto = model("(float[N,48] x) => (float y) { h = MatMul (x, w) y = MatMul (h, v) }", {"w": (48, 64), "v": (64, 5)})
    loaded = load(proto)
    analysis = analyze(loaded)
    merges = {analysis.groups[0].name: pruning(np.arange(50), 64)}
    folded = emit(loaded, edits(loaded, analysis, merges))
    before = folded.SerializeToString()
    done = reconstruct(SharedPrefix(loaded, feeds(0, (8, 48))), analysis, Changes(merges), folded)
    assert [(one.output, one.fit) for one in done] == [("y", Fit.NONE)]
    assert np.isnan(done[0].after)
    assert folded.SerializeToString() == before
    assert (
        measure_sensitivity.measure_sensitivity(
            loaded, analysis, [analysis.groups[0].name], feeds(0, (8, 48))
        ).eliminations
        == {}
    )


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 0.1, 1e9])
def test_remap_is_the_minimum(ridge: float, centered: bool) -> None:
    """Against least squares on the rows themselves."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6)) + 0.5
    z = (x[:, :4] + 0.3 * rng.standard_normal((500, 4))).astype(np.float32)
    sums = pooled.channel_moments(10)
    pooled.add_rows(sums, np.concatenate([z, x.astype(np.float32)], axis=1), 1.0, rng)
    wanted, old = rng.standard_normal((7, 6)), rng.standard_normal((7, 4))
    solved, before, after = remap(sums, old, wanted, ridge, centered)
    if centered:
        x, z = x - x.mean(axis=0), z - z.mean(axis=0)
    target = x @ wanted.T
    pull = np.sqrt(ridge * np.mean(z * z) * len(z)) * np.eye(4)
    best = np.linalg.lstsq(np.vstack([z, pull]), np.vstack([target, pull @ old.T]), rcond=None)[0].T
    np.testing.assert_allclose(solved, best, rtol=SOLVED_RTOL, atol=SOLVED_RTOL)
    for found, weights in ((before, old), (after, solved)):
        assert found == pytest.approx(np.sum((target - z @ weights.T) ** 2) / np.sum(target**2), rel=1e-4)


def test_remap_is_grails_map_without_a_ridge() -> None:
    """z = R x, nothing refitted before: W' = W G R' (R G R')^-1, whatever the merged weights were."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((400, 6)) @ rng.standard_normal((6, 6)) + 1).astype(np.float32)
    keep = np.array([0, 2, 3])
    sums = pooled.channel_moments(9)
    pooled.add_rows(sums, np.concatenate([x[:, keep], x], axis=1), 1.0, rng)
    g, r, wanted = x.T.astype(np.float64) @ x, np.eye(6)[keep], rng.standard_normal((5, 6))
    grail = wanted @ g @ r.T @ np.linalg.inv(r @ g @ r.T)
    for old in (wanted[:, keep], rng.standard_normal((5, 3))):
        np.testing.assert_allclose(remap(sums, old, wanted, 0.0, centered=False)[0], grail, rtol=1e-4, atol=1e-4)


def conv(**attributes: Any) -> Linear:
    found = linear(helper.make_node("Conv", ["x", "w"], ["y"], **attributes), (5, 4, 3, 2))
    assert found is not None
    return found


def gemm(inputs: int) -> Linear:
    found = linear(helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), (5, inputs))
    assert found is not None
    return found


def place(positions: Array) -> Place:
    return Place("w", 1, 1, Role.CONSUMES, positions)


def test_pools() -> None:
    every = np.arange(12)
    assert pooling_of(conv(), None) == ChannelPooling(6)
    assert pooling_of(gemm(12), place(every.reshape(4, 3))) == ChannelPooling(3)
    assert pooling_of(gemm(12), place(every.reshape(3, 4).T)) == ChannelPooling(3, last=True)
    for nothing in (
        pooling_of(conv(group=2), None),
        pooling_of(gemm(12), None),
        pooling_of(gemm(12), place(every[:, None])),  # nothing to pool
        pooling_of(gemm(12), place(every[:6].reshape(2, 3))),  # not all inputs
        pooling_of(gemm(12), place(every.reshape(4, 3)[::-1])),  # in another order
    ):
        assert nothing is None


@pytest.mark.parametrize("last", [False, True])
def test_pooled_product_is_the_product(last: bool) -> None:
    """All taps of a row together give what the node gives."""
    how, node, rng = ChannelPooling(3, last), gemm(12), np.random.default_rng(0)
    weight, x = rng.standard_normal((5, 12)), rng.standard_normal((2, 12))
    parts = how.apart(weight).reshape(5, 3, 4)
    rows = how.rows(node, x).reshape(2, 3, 4)
    np.testing.assert_allclose(np.einsum("otc,rtc->ro", parts, rows), x @ weight.T)
    np.testing.assert_array_equal(how.together(how.apart(weight)), weight)


@pytest.mark.parametrize("case", ["Conv", "ConvTranspose", "Gemm behind a Flatten"])
def test_the_survey_sees_channels(case: str) -> None:
    """Half of the channels cost nothing, the others do."""
    loaded = load(mixed(case))
    analysis = analyze(loaded)
    (found,) = measure_sensitivity.measure_sensitivity(
        loaded, analysis, [analysis.groups[0].name], feeds(0), ridge=1e-7
    ).eliminations.values()
    assert found.errors[4] < 1e-4 < 1e-2 < found.errors[5]


@pytest.mark.parametrize(("limit", "says"), [(60, "channel-level maps"), (30, "merged and not refitted")])
def test_the_report_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, says: str) -> None:
    for module in (pooled, refit, measure_sensitivity):
        monkeypatch.setattr(module, "MOST_FEATURES", limit)
    proto = net()
    result = onnxfold.fold(
        proto, tmp_path / "out.onnx", ratio=0.5, round_to=1, latency=False,
        calibration={"x": feeds(0, (48, 3, 8, 8))[0]["x"]},
    )  # fmt: skip
    assert result.report.check is not None
    notes = [n for n in result.report.check.notes if "too wide" in n]
    assert len(notes) == 1 and says in notes[0]
    assert notes[0].startswith(f"1 consumer with over {limit} inputs") and "'c'" in notes[0]


def test_notes() -> None:
    assert wide_notes({"a": Fit.FULL}) == ()
    fits = {"a": Fit.CHANNELS, "b": Fit.FULL, "c": Fit.NONE, "d": Fit.CHANNELS}
    first, second = wide_notes(fits)
    assert first.startswith("2 consumers with over") and "('a', 'd')" in first
    assert second.startswith("1 consumer with over") and "not refitted" in second and "('c')" in second
    assert ", ...)" in wide_notes({str(i): Fit.NONE for i in range(9)})[0]
