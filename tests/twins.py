"""Models with redundant channels, and what refitting their consumers gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from helpers import model
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.result import Analysis
from onnxfold.evaluation.metrics import relative_l2
from onnxfold.folding.merge import Merge, pruning
from onnxfold.model.model import Model, load
from onnxfold.model.save import inline
from onnxfold.recovery.reconstruct import Changes, ReconstructionSettings, Refitted, reconstruct
from onnxfold.runtime.session import Session
from onnxfold.runtime.shared_prefix import SharedPrefix
from onnxfold.transform.edits import edits
from onnxfold.transform.emit import emit

REFIT_RTOL = 3e-4  # float32 moments and a ridge of 1e-7. Measured under 1e-4
HALF_RTOL = 3e-3  # the weights and all activations are float16, of 1e-3 each. Measured under 2e-3
CONTROL = 0.1  # what the plain pruned model loses at least. Measured over 0.2
NO_RIDGE = 1e-7
SAMPLES, BATCHES = 24, 4

Array = NDArray[Any]
BN = "BatchNormalization"


def norm(number: int, channels: int) -> dict[str, tuple[int]]:
    return {f"{name}{number}": (channels,) for name in ("scale", "bias", "mean", "var")}


@dataclass
class Case:
    """A model whose tensors `twins` hold every row (along axis 0, or 1 of a MatMul) twice."""

    text: str
    weights: Mapping[str, Sequence[int]]
    twins: Sequence[str]
    rtol: float = REFIT_RTOL
    refits: int = 1
    values: Mapping[str, Any] = field(default_factory=dict)

    def model(self) -> ModelProto:
        proto = model(self.text, self.weights, self.values)
        for tensor in proto.graph.initializer:
            if tensor.name in self.twins:
                value = numpy_helper.to_array(tensor).copy()
                rows = value.T if tensor.name.startswith("m") and value.ndim == 2 else value
                half = len(rows) // 2
                rows[half:] = rows[:half]
                tensor.raw_data = value.tobytes()
        return proto


CASES = {
    "convolutions": Case(
        "(float[N,3,6,6] x) => (float y) { h = Conv (x, w, b) r = Relu (h) y = Conv <pads=[1,1,1,1]> (r, v, c) }",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "c": (5,)}, ("w", "b"),
    ),
    "no bias anywhere": Case(
        "(float[N,3,6,6] x) => (float y) { h = Conv (x, w) r = Relu (h) y = Conv (r, v) }",
        {"w": (8, 3, 3, 3), "v": (5, 8, 3, 3)}, ("w",),
    ),
    "a bias is needed": Case(
        "(float[N,3,6,6] x) => (float y) { h = Conv (x, w, b) y = Conv (h, v) }",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3)}, ("w",),
    ),
    "a bias is needed in a Gemm": Case(
        "(float[N,6] x) => (float y) { h = Gemm <transB=1> (x, w, b) y = Gemm <transB=1> (h, v) }",
        {"w": (8, 6), "b": (8,), "v": (5, 8)}, ("w",),
    ),
    "a Gemm, not transposed": Case(
        "(float[N,6] x) => (float y) { h = Gemm <transB=1> (x, w, b) r = Relu (h) y = Gemm (r, v, c) }",
        {"w": (8, 6), "b": (8,), "v": (8, 5), "c": (5,)}, ("w", "b"),
    ),
    "a Gemm behind a Flatten": Case(
        "(float[N,3,6,6] x) => (float y) { h = Conv (x, w, b) r = Relu (h) f = Flatten (r) y = Gemm (f, v, c) }",
        {"w": (8, 3, 6, 5), "b": (8,), "v": (16, 5), "c": (5,)}, ("w", "b"),
    ),
    "MatMul": Case(
        "(float[N,4,6] x) => (float y) { h = MatMul (x, m) r = Relu (h) y = MatMul (r, v) }",
        {"m": (6, 8), "v": (8, 5)}, ("m",),
    ),
    "MatMul and Add": Case(
        """(float[N,4,6] x) => (float y) {
            h = MatMul (x, m) a = Add (h, b) r = Relu (a) g = MatMul (r, v) y = Add (c, g) }""",
        {"m": (6, 8), "b": (8,), "v": (8, 5), "c": (5,)}, ("m", "b"),
    ),
    "MatMul and Add, a bias is needed": Case(
        "(float[N,4,6] x) => (float y) { h = MatMul (x, m) a = Add (h, b) g = MatMul (a, v) y = Add (c, g) }",
        {"m": (6, 8), "b": (8,), "v": (8, 5), "c": (5,)}, ("m",),
    ),
    "batch norm": Case(
        f"""(float[N,3,6,6] x) => (float y) {{
            h = Conv (x, w) n = {BN} (h, scale1, bias1, mean1, var1) r = Relu (n) g = Conv (r, v)
            k = {BN} (g, scale2, bias2, mean2, var2) y = Relu (k) }}""",
        {"w": (8, 3, 3, 3), "v": (5, 8, 3, 3), **norm(1, 8), **norm(2, 5)},
        ("w", "scale1", "bias1", "mean1", "var1"),
    ),
    "batch norm takes the bias": Case(
        f"""(float[N,3,6,6] x) => (float y) {{
            h = Conv (x, w, b) g = Conv (h, v) k = {BN} (g, scale2, bias2, mean2, var2) y = Relu (k) }}""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), **norm(2, 5)}, ("w",),
    ),
    "a running mean that two share": Case(
        f"""(float[N,3,6,6] x) => (float y) {{
            h = Conv (x, w, b) g = Conv (h, v) k = {BN} (g, scale2, bias2, mean2, var2)
            i = Conv (x, u) j = {BN} (i, scale2, bias2, mean2, var2) q = GlobalAveragePool (k)
            s = GlobalAveragePool (j) t = Mul (q, s) y = Relu (t) }}""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "u": (5, 3, 3, 3), **norm(2, 5)}, ("w",),
    ),
    "batch norm of an Identity": Case(
        f"""(float[N,3,6,6] x) => (float y) {{
            h = Conv (x, w, b) s = Identity (scale2) i = Identity (mean2) j = Identity (i) g = Conv (h, v)
            k = {BN} (g, s, bias2, j, var2) y = Relu (k) }}""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), **norm(2, 5)}, ("w",),
    ),
    "a running mean and an Identity of it": Case(
        f"""(float[N,3,6,6] x) => (float y) {{
            h = Conv (x, w, b) o = Identity (mean2) l = Conv (x, u) j = {BN} (l, scale2, bias2, mean2, var2)
            g = Conv (h, v) k = {BN} (g, scale2, bias2, o, var2)
            q = GlobalAveragePool (k) s = GlobalAveragePool (j) t = Mul (q, s) y = Relu (t) }}""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "u": (5, 3, 3, 3), **norm(2, 5)}, ("w",),
    ),
    "an Identity of a running mean that another reads too": Case(
        f"""(float[N,3,6,6] x) => (float y) {{
            h = Conv (x, w, b) o = Identity (mean2) l = Conv (x, u) j = {BN} (l, scale2, bias2, o, var2)
            g = Conv (h, v) k = {BN} (g, scale2, bias2, mean2, var2)
            q = GlobalAveragePool (k) s = GlobalAveragePool (j) t = Mul (q, s) y = Relu (t) }}""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "u": (5, 3, 3, 3), **norm(2, 5)}, ("w",),
    ),
    "an Identity of a weight and of a bias": Case(
        """(float[N,3,6,6] x) => (float y) {
            h = Conv (x, w, b) z = Identity (v) d = Identity (c) g = Conv (h, z, d) y = Relu (g) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "c": (5,)}, ("w",),
    ),
    "depthwise": Case(
        """(float[N,3,6,6] x) => (float y) {
            h = Conv (x, w, b) r = Relu (h) d = Conv <group=8> (r, k, l) s = Relu (d) y = Conv (s, v, c) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "k": (8, 1, 3, 3), "l": (8,), "v": (5, 8, 1, 1), "c": (5,)},
        ("w", "b", "k", "l"), refits=2,
    ),
    "up": Case(
        """(float[N,3,5,5] x) => (float y) {
            h = Conv (x, w, b) r = Relu (h) g = ConvTranspose <strides=[2,2], pads=[1,0,1,0]> (r, v) y = Relu (g) }""",
        {"w": (8, 3, 2, 2), "b": (8,), "v": (8, 5, 3, 3)}, ("w", "b"),
    ),
    "up, a bias is needed": Case(
        """(float[N,3,5,5] x) => (float y) {
            h = Conv (x, w, b) y = ConvTranspose (h, v) }""",
        {"w": (8, 3, 2, 2), "b": (8,), "v": (8, 5, 1, 1)}, ("w",),
    ),
    "up, batch norm": Case(
        f"""(float[N,3,5,5] x) => (float y) {{
            h = Conv (x, w, b) g = ConvTranspose <strides=[2,2]> (h, v) k = {BN} (g, scale2, bias2, mean2, var2)
            y = Relu (k) }}""",
        {"w": (8, 3, 2, 2), "b": (8,), "v": (8, 5, 2, 2), **norm(2, 5)}, ("w", "b"),
    ),
    "up in groups": Case(
        """(float[N,3,5,5] x) => (float y) {
            h = Conv (x, w, b) r = Relu (h) g = ConvTranspose <group=8, strides=[2,2]> (r, k, l) s = Relu (g)
            y = Conv (s, v, c) }""",
        {"w": (8, 3, 2, 2), "b": (8,), "k": (8, 1, 3, 3), "l": (8,), "v": (5, 8, 1, 1), "c": (5,)},
        ("w", "b", "k", "l"), refits=2,
    ),
    "a chain": Case(
        """(float[N,3,8,8] x) => (float y) {
            h = Conv (x, w, b) r = Relu (h) g = Conv (r, v, c) s = Relu (g) p = GlobalAveragePool (s)
            f = Flatten (p) y = Gemm <transB=1> (f, u) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (6, 8, 3, 3), "c": (6,), "u": (5, 6)}, ("w", "b", "v", "c"), refits=2,
    ),
    "a residual stream": Case(
        """(float[N,3,6,6] x) => (float y) {
            h = Conv (x, w, b) r = Relu (h) g = Conv <pads=[1,1,1,1]> (r, v, c) q = Relu (g)
            i = Conv (q, t, e) s = Add (i, r) k = Relu (s) y = Conv (k, u) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (6, 8, 3, 3), "c": (6,), "t": (8, 6, 1, 1), "e": (8,), "u": (5, 8, 1, 1)},
        ("w", "b", "v", "c", "t", "e"), refits=3,
    ),
    "two consumers": Case(
        """(float[N,3,6,6] x) => (float y) {
            h = Conv (x, w, b) r = Relu (h) g = Conv (r, v, c) i = Conv <strides=[1,1]> (r, u) y = Mul (g, i) }""",
        {"w": (8, 3, 3, 3), "b": (8,), "v": (5, 8, 3, 3), "c": (5,), "u": (5, 8, 3, 3)}, ("w", "b"), refits=2,
    ),
}  # fmt: skip


def feeds_for(proto: ModelProto, seed: int, batches: int = BATCHES, size: int = SAMPLES) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    constants = {t.name for t in proto.graph.initializer}
    kinds = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.FLOAT16: np.float16}
    return [
        {
            v.name: rng.standard_normal([d.dim_value or size for d in v.type.tensor_type.shape.dim]).astype(
                kinds[v.type.tensor_type.elem_type]
            )
            for v in proto.graph.input
            if v.name not in constants
        }
        for _ in range(batches)
    ]


def outputs(proto: ModelProto, feeds: Sequence[Mapping[str, Array]]) -> Array:
    session = Session(proto.SerializeToString())
    return np.concatenate([np.asarray(session.run(feed)[0], np.float64).ravel() for feed in feeds])


@dataclass
class MergeOutcome:
    """The errors of the plain folded model and of the refitted one, on inputs that were not fitted on."""

    plain: float
    refitted: float
    proto: ModelProto
    before: ModelProto
    done: tuple[Refitted, ...]


def halves(analysis: Analysis) -> dict[str, Merge]:
    """Every group pruned to the first half of its channels."""
    return {g.name: pruning(np.arange(g.size // 2), g.size) for g in analysis.groups}


def refitted(
    source: ModelProto | Path, merges: Mapping[str, Merge] | None = None, ridge: float = NO_RIDGE, **options: Any
) -> MergeOutcome:
    loaded: Model = load(source)
    analysis = analyze(loaded)
    assert analysis.groups
    merges = merges or halves(analysis)
    whole, plain = inline(loaded.proto, loaded.folder), emit(loaded, edits(loaded, analysis, merges))
    folded = ModelProto()
    folded.CopyFrom(plain)
    feeds, others = feeds_for(whole, 0), feeds_for(whole, 1)
    settings = ReconstructionSettings(ridge=ridge, **options)
    done = reconstruct(SharedPrefix(loaded, feeds), analysis, Changes(merges), folded, settings)
    expected = outputs(whole, others)
    plain, inlined = inline(plain, loaded.folder), inline(folded, loaded.folder)
    onnx.checker.check_model(inlined, full_check=True)
    errors = [relative_l2(expected, outputs(proto, others)) for proto in (plain, inlined)]
    return MergeOutcome(*errors, inlined, plain, done)


def reproduces(found: MergeOutcome, rtol: float = REFIT_RTOL) -> None:
    assert found.plain > CONTROL, "the control shows nothing"
    assert found.refitted < rtol
