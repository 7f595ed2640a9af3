"""A graph in the making: nodes in order, weights by name; written with its weights inside or streamed beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnxfold.folding.blas import one_thread

from .weights import Draw, Source, Stored

ALIGN = 4096  # of weights in the data file, so that they can be memory-mapped
SMALL = 1024  # bytes; smaller ones stay inside the model
Shape = Sequence[int | str]


class Builder:
    """Nodes and weights under names that are given. `dtype`: the type of weights and activations."""

    def __init__(self, opset: int, dtype: Any, domains: Sequence[str] = (), producer: str = "pytorch") -> None:
        self.opset, self.dtype, self.domains, self.producer = opset, np.dtype(dtype), tuple(domains), producer
        self.element = helper.np_dtype_to_tensor_dtype(self.dtype)
        self.nodes: list[NodeProto] = []
        self.stored: dict[str, Stored] = {}
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []

    def input(self, name: str, shape: Shape, element: int | None = None) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, element or self.element, shape))
        return name

    def output(self, tensor: str, name: str, shape: Shape, element: int | None = None) -> None:
        """`tensor` becomes the graph's output `name`; caches come last."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for at, one in enumerate(names):
                    if one == tensor:
                        names[at] = name
        at = len(self.outputs) if name.startswith("present") else 0
        self.outputs.insert(at, helper.make_tensor_value_info(name, element or self.element, shape))

    def node(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], name: str, domain: str = "", **attributes: Any
    ) -> str:
        """A node; the name of its first output."""
        self.nodes.append(helper.make_node(kind, inputs, outputs, name, domain=domain, **attributes))
        return outputs[0]

    def weight(self, name: str, source: Source, shape: Sequence[int] | None = None) -> str:
        """A weight in the model's own type; the same name twice is the same weight."""
        self.stored[name] = Stored(tuple(shape or source.size), self.dtype, source)
        return name

    def table(self, name: str, values: Any, dtype: Any = None) -> str:
        """Numbers as they are, integers as int64 and floats in the model's type unless `dtype` says otherwise."""
        array = np.asarray(values)
        kind = dtype or {"i": np.int64, "f": self.dtype}.get(array.dtype.kind, array.dtype)
        self.stored[name] = Stored(array.shape, np.dtype(kind), table=array)
        return name

    def model(self, draw: Draw = Draw()) -> ModelProto:  # noqa: B008 (frozen)
        """The model with its weights inside."""
        proto = self._graph()
        with one_thread():  # tiles are small
            for name, stored in self.stored.items():
                proto.graph.initializer.append(self._inside(name, stored, draw))
        return proto

    def write(self, path: Path, draw: Draw = Draw()) -> None:  # noqa: B008 (frozen)
        """The model at `path`, its weights in a file beside it (PATH.data), one slab in memory at a time."""
        data, proto, at = path.with_name(f"{path.name}.data"), self._graph(), 0
        with data.open("wb") as file, one_thread():
            for name, stored in self.stored.items():
                if stored.nbytes < SMALL:
                    proto.graph.initializer.append(self._inside(name, stored, draw))
                    continue
                at += -at % ALIGN
                file.seek(at)
                for part in stored.parts(draw):
                    file.write(part.reshape(-1).view(np.uint8).data)
                proto.graph.initializer.append(_beside(name, stored, data.name, at))
                at += stored.nbytes
        path.write_bytes(proto.SerializeToString())

    def _graph(self) -> ModelProto:
        graph = helper.make_graph(self.nodes, "main_graph", self.inputs, self.outputs)
        sets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1) for domain in self.domains)]
        ir_version = 8 if self.opset < 19 else 9 if self.opset < 21 else 10 if self.opset < 23 else 11
        return helper.make_model(graph, opset_imports=sets, ir_version=ir_version, producer_name=self.producer)

    def _inside(self, name: str, stored: Stored, draw: Draw) -> TensorProto:
        whole = np.concatenate([part.ravel() for part in stored.parts(draw)])
        return numpy_helper.from_array(whole.reshape(stored.shape), name)


def _beside(name: str, stored: Stored, location: str, offset: int) -> TensorProto:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(stored.dtype))
    tensor = TensorProto(name=name, dims=stored.shape, data_type=element, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(stored.nbytes))):
        tensor.external_data.append(StringStringEntryProto(key=key, value=value))
    return tensor
