"""Stacks of gated MLPs (LLaMA's, without attention) with weights outside the file, written one weight at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

OPSET = 18


def weight(shape: tuple[int, int], seed: tuple[int, ...], dtype: type) -> NDArray[np.generic]:
    """Low rank and noise, scaled so that activations keep their size."""
    rng = np.random.default_rng(seed)
    rank = max(1, min(shape) // 16)
    low = rng.standard_normal((shape[0], rank), np.float32) @ rng.standard_normal((rank, shape[1]), np.float32)
    noise = rng.standard_normal(shape, np.float32)
    return ((low / rank**0.5 + 0.5 * noise) / shape[0] ** 0.5).astype(dtype)


def write_gated(
    path: Path, blocks: int, hidden: int, width: int, dtype: type = np.float32, external: bool = True
) -> Path:
    """x [batch, hidden] -> x + down(silu(gate x) * (up x)), `blocks` times. Never more than one weight in memory."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes, tensors = [], list[TensorProto]()
    x = "x"
    with open(path.with_suffix(".weights") if external else "/dev/null", "wb") as data:
        for block in range(blocks):
            name = f"layers.{block}.mlp"
            for number, part in enumerate(("gate", "up", "down")):
                shape = (width, hidden) if part == "down" else (hidden, width)
                values = weight(shape, (block, number), dtype)
                full = f"{name}.{part}.weight"
                if external:
                    data.write(b"\0" * (-data.tell() % 4096))
                    tensor = TensorProto(name=full, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
                    where = {"location": Path(data.name).name, "offset": data.tell(), "length": values.nbytes}
                    for key, value in where.items():
                        tensor.external_data.add(key=key, value=str(value))
                    data.write(values.tobytes())
                else:
                    tensor = numpy_helper.from_array(values, full)
                tensors.append(tensor)
            nodes += [
                helper.make_node("MatMul", [x, f"{name}.gate.weight"], [f"{name}.g"], f"{name}.gate"),
                helper.make_node("Sigmoid", [f"{name}.g"], [f"{name}.s"], f"{name}.sigmoid"),
                helper.make_node("Mul", [f"{name}.g", f"{name}.s"], [f"{name}.a"], f"{name}.silu"),
                helper.make_node("MatMul", [x, f"{name}.up.weight"], [f"{name}.u"], f"{name}.up"),
                helper.make_node("Mul", [f"{name}.a", f"{name}.u"], [f"{name}.h"], f"{name}.mul"),
                helper.make_node("MatMul", [f"{name}.h", f"{name}.down.weight"], [f"{name}.d"], f"{name}.down"),
                helper.make_node("Add", [x, f"{name}.d"], [f"{name}.y"], f"{name}.add"),
            ]
            x = f"{name}.y"
    nodes.append(helper.make_node("Identity", [x], ["y"], "out"))
    given, made = (helper.make_tensor_value_info(n, kind, ["batch", hidden]) for n in "xy")
    graph = helper.make_graph(nodes, "gated", [given], [made], tensors)
    proto: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.save(proto, path)
    return path


def damaged(source: Path, name: str, value: float) -> None:
    """`value` somewhere in weight `name`."""
    tensor = next(t for t in onnx.load(source, load_external_data=False).graph.initializer if t.name == name)
    where = {e.key: e.value for e in tensor.external_data}
    with (source.parent / where["location"]).open("r+b") as file:
        file.seek(int(where["offset"]) + 40)
        file.write(np.float32(value).tobytes())
