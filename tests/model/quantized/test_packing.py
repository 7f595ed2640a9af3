"""Weights of few bits in blocks: what they become, how small and how exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import Case, constant, fold_by, model
from nbits import FLOATS, HIDDEN, SHAPES, Array, K, N, distance, group_of, inputs, net, random, run, some_merged
from onnx import ModelProto, numpy_helper
from onnxruntime.capi import _pybind_state
from packing import Bits, Pack, Packed, add, integers
from tiny import fold, with_and_without_repair

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import costs, count_parameters
from onnxfold.model.model import load
from onnxfold.model.quantized.packing import PackedLayout, join, layout, split

OWN_ERROR = 1.3  # times the error of folding floats and rounding them once; measured 0.85 to 1.1
DQ_BLOCKS = {"w": Pack(1, np.int8, block=16, spare=False), "v": Pack(1, np.int8, block=16, spare=False)}


# numbers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("k", [32, 33, 47])
def test_packing_and_back(bits: int, k: int) -> None:
    rng, how = np.random.default_rng(0), PackedLayout(5, k, bits, 16)
    weight, zeros = rng.integers(0, 2**bits, (5, k)), rng.integers(0, 2**bits, (5, how.blocks))
    held = how.held(weight)
    assert held.shape == how.shape and held.dtype == np.uint8
    assert np.array_equal(how.weight(held), weight)
    assert np.array_equal(how.zeros(join(zeros, bits)), zeros)
    assert split(join(zeros, bits), bits).shape[1] - how.blocks < 8 // bits


@pytest.mark.parametrize(
    "change", [{"bits": 3}, {"block_size": 8}, {"block_size": 24}, {"N": 0}, {"K": -1}, {"weight_prepacked": 1}]
)
def test_layouts_that_nobody_describes(change: dict[str, int]) -> None:
    good = {"N": 4, "K": 32, "bits": 4, "block_size": 16}
    assert layout(good) == PackedLayout(4, 32, 4, 16) and layout({**good, **change}) is None


# what folding does to them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("zeros", ["", "packed", "flat", "float"])
def test_what_is_not_merged_stays_bit_for_bit(bits: int, zeros: str) -> None:
    proto = net(random(bits, zeros))
    before, after = integers(proto), integers(fold_by({group_of(proto): some_merged()}, proto))
    assert after["w_q"].shape == (63, 2, 2 * bits) and after["v_q"].shape == (12, 4, 2 * bits)
    for part in ("w_q", "w_s", "w_z"):
        if part in before:
            old, new = (x[part].reshape(rows, -1) for x, rows in ((before, 72), (after, 63)))
            assert np.array_equal(old[12:], new[3:]) and old.dtype == new.dtype
            assert before[part].ndim == after[part].ndim
    assert set(before) == set(after)


def test_whole_blocks_that_stay_keep_their_numbers() -> None:
    """The consumer: what is left of the fourth and fifth block comes together, the second and third stay as they
    were."""
    proto = net(random())
    labels = np.concatenate([np.full(16, 0), np.arange(1, 57)])  # the first block becomes one channel...
    before = integers(proto)
    after = integers(fold_by({group_of(proto): labels}, proto))
    assert after["v_q"].shape == (12, 4, 8)  # ... so all others move by one: nothing can stay
    assert not np.array_equal(after["v_q"][:, 1], before["v_q"][:, 2])
    pruned = keep(proto, np.arange(16, 72))
    assert np.array_equal(integers(pruned)["v_q"], before["v_q"][:, 1:])
    assert np.array_equal(integers(pruned)["v_s"], before["v_s"][:, 1:])


def keep(proto: ModelProto, kept: Array) -> ModelProto:
    from onnxfold.folding.merge import pruning
    from onnxfold.transform.edits import edits
    from onnxfold.transform.emit import emit

    loaded = load(proto)
    return emit(loaded, edits(loaded, analyze(loaded), {group_of(proto): pruning(kept, HIDDEN)}))


def test_channels_of_a_block_that_is_mixed_stay_together() -> None:
    """With a g_idx what is left is put into blocks by the blocks that it was in."""
    proto = net(random(zeros="", mixed=True))
    old = constant(proto, "v_g")
    kept = np.flatnonzero(old != 1)
    after = keep(proto, kept)
    new = constant(after, "v_g")
    assert new.dtype == np.int32 and np.array_equal(new, np.where(old[kept] > 1, old[kept] - 1, 0))
    before, now = load(proto).constants.array("v_q")[:, kept], load(after).constants.array("v_q")
    assert np.array_equal(now, before)


@pytest.mark.parametrize("how", [random(4), random(4, ""), random(8), random(8, ""), random(2), random(4, "float"),
                                 random(4, "", mixed=True), random(4, dtype=np.float16)], ids=str)  # fmt: skip
def test_errors_are_those_of_rounding(how: Bits) -> None:
    """Quantized and then folded, a model is about as far from the folded floats as one folded and then quantized."""
    proto = net(how)
    values = {name: load(proto).constants.array(name) for name in ("w_q", "v_q")}
    plain = model(FLOATS, values={**values, "w": values["w_q"], "v": values["v_q"],
                                  **{b: constant(proto, b).astype(np.float32) for b in "bc"}})  # fmt: skip
    labels, x = some_merged(), inputs(dtype=how.dtype)
    floats = fold_by({group_of(plain): labels}, plain)
    rounded = model(FLOATS, values={t.name: numpy_helper.to_array(t) for t in floats.graph.initializer})
    for name in ("w", "v"):
        rounded = with_values(rounded, name, unpacked(how, constant(floats, name)))
    expected = run(floats, x.astype(np.float32))
    once = distance(run(rounded, x.astype(np.float32)), expected)
    found = distance(run(fold_by({group_of(proto): labels}, proto), x), expected)
    assert 0 < found <= OWN_ERROR * once, (found, once)


def with_values(proto: ModelProto, name: str, array: Array) -> ModelProto:
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))
    return proto


def unpacked(how: Bits, weight: Array) -> Array:
    """Floats as they are after MatMulNBits has packed them."""
    n, k = weight.shape
    text = f"""(float[N,{k}] x) => (float[N,{n}] y) {{ y = com.microsoft.MatMulNBits<K={k}, N={n}, bits={how.bits},
        block_size={how.block}>(x, w_q, w_s, {"w_z" if how.zeros else ""}, {"w_g" if how.mixed else ""}) }}"""
    one = Packed("one", text, {"w": (n, k)})
    proto = Case.model(one)
    proto.graph.initializer.pop()
    add(proto, {f"w_{part}": value for part, value in how.parts(weight).items()})
    return load(proto).constants.array("w_q")


@pytest.mark.parametrize("proto", [net(random(4)), net(random(8, "")), net(random(4, "float")),
                                   Packed("dq", FLOATS, SHAPES, opset=21, packs=DQ_BLOCKS).model()],
                         ids=["4", "8", "float", "dq"])  # fmt: skip
def test_numbers_and_bytes_are_counted(proto: ModelProto) -> None:
    prices = costs(load(proto))
    assert prices.params({}) == count_parameters(proto) >= (K + N + 1) * HIDDEN
    assert prices.macs({}) == (K + N) * HIDDEN
    result = fold(proto, ratio=0.5, latency=False)
    after = costs(load(result.model))
    assert after.params({}) == count_parameters(result.model) < 0.6 * count_parameters(proto)
    group = analyze(load(proto)).groups[0]
    lengths = {(place.tensor, place.axis): 40 for place in group.places}
    assert prices.params(lengths) == after.params({}) and prices.macs(lengths) == after.macs({})
    smaller = proto.ByteSize() - result.model.ByteSize()
    assert abs(prices.stored({}) - prices.stored(lengths) - smaller) <= 0.15 * smaller


@pytest.mark.parametrize("bits", [4, 8])
def test_a_target_size_is_met(bits: int, size: float = 0.55) -> None:
    text = f"""(float[N,64] x) => (float[N,64] y) {{
        h = com.microsoft.MatMulNBits<K=64, N=512, bits={bits}, block_size=32>(x, w_q, w_s) a = Relu(h)
        y = com.microsoft.MatMulNBits<K=512, N=64, bits={bits}, block_size=32>(a, v_q, v_s) }}"""
    how = Bits(bits, 32, spare=False)
    proto = Packed("wide", text, {"w": (512, 64), "v": (64, 512)}, packs={"w": how, "v": how}).model()
    result = fold(proto, target_size=size, latency=False).model
    assert size - 0.05 <= result.ByteSize() / proto.ByteSize() <= size


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_consumers_are_refitted_and_rounded(dtype: Any) -> None:
    proto = net(random(8, dtype=dtype))
    x = inputs(256, dtype)
    errors, _ = with_and_without_repair(proto, ratio=0.3, calibration={"x": x})
    assert errors["least-squares"] < 0.9 * errors["none"], errors


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_as_onnxruntime_packs_them(bits: int, symmetric: bool) -> None:
    """Its own kernels choose negative scales; what they pack is read, and written, as they read it."""
    quantize = getattr(_pybind_state, f"quantize_matmul_{bits}bits")
    parts = dict[str, Array]()
    for name, shape in (("w", (HIDDEN, K)), ("v", (N, HIDDEN))):
        how = PackedLayout(*shape, bits, 16)
        held, scale = np.zeros(how.shape, np.uint8), np.zeros((how.n, how.blocks), np.float32)
        zero = np.zeros((how.n, how.zeros_width), np.uint8)
        floats = np.random.default_rng(2).standard_normal(shape[::-1]).astype(np.float32)
        quantize(held, floats, scale, zero, 16, how.n, how.k, symmetric)
        parts |= {f"{name}_q": held, f"{name}_s": scale, **({} if symmetric else {f"{name}_z": zero})}
    proto = net(Bits(bits, zeros="" if symmetric else "packed"))
    for tensor in proto.graph.initializer:
        if tensor.name in parts:
            tensor.CopyFrom(numpy_helper.from_array(parts[tensor.name], tensor.name))
    assert not symmetric or (parts["w_s"] < 0).any()
    constants, x = load(proto).constants, inputs()
    hidden = np.maximum(x @ constants.array("w_q").T + constants.array("b"), 0)
    assert distance(hidden @ constants.array("v_q").T + constants.array("c"), run(proto, x)) < 1e-5
    after = fold_by({group_of(proto): some_merged()}, proto)
    assert np.array_equal(integers(after)["w_q"][3:], parts["w_q"][12:])
    assert ("v_z" in integers(after)) == (not symmetric)
