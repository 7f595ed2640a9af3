"""The model as the user gave it, and what is known of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from tiny import net

from onnxfold.model import model as models
from onnxfold.model.constants import Constants
from onnxfold.model.model import load


def test_constants_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[Constants]()

    class Counted(Constants):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(models, "Constants", Counted)
    found = load(net())
    assert found.constants is found.constants and made == [found.constants]


def test_another_proto_has_constants_of_its_own() -> None:
    """So layers are permuted before they share weights: the same graph, other numbers."""
    found = load(net())
    assert np.abs(found.constants.array("w1")).max() > 0
    changed = ModelProto.FromString(found.proto.SerializeToString())
    tensor = next(t for t in changed.graph.initializer if t.name == "w1")
    tensor.CopyFrom(numpy_helper.from_array(np.zeros(list(tensor.dims), np.float32), "w1"))
    assert not replace(found, proto=changed).constants.array("w1").any()
    assert found.constants.array("w1").any()
