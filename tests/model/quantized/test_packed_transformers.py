"""Transformers whose weights are of few bits: the groups of their floats, heads and hidden units, and the oracles."""

from __future__ import annotations

import pytest
from caching import cached
from helpers import CONTROL, EXACT_FOLD_RTOL
from packing import Bits, with_nbits
from transformer import NETS, Style, build, runs_batch, shapes

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load
from onnxfold.testing import duplicate, permute

CASES = [
    ("vit", Style.DECOMPOSED, ""), ("bert", Style.FUSED, "packed"), ("gpt2", Style.FUSED, ""),
    pytest.param("llama2", Style.DECOMPOSED, "packed", marks=pytest.mark.slow), ("llama3", Style.FUSED, "packed"),
]  # fmt: skip


@pytest.mark.parametrize(("net", "style", "zeros"), CASES)
def test_groups_and_oracles(net: str, style: Style, zeros: str) -> None:
    config = NETS[net]
    proto = build(config, style).model()
    batch = runs_batch(config, style)
    given = None if cached(config, style) else shapes(proto, batch)
    floats = [group.size for group in analyze(load(proto, given)).groups]
    assert with_nbits(proto, Bits(zeros=zeros))
    loaded = load(proto, given)
    found = analyze(loaded)
    assert [group.size for group in found.groups] == floats
    assert any(place.tensor.endswith("_q") for group in found.groups for place in group.places)
    for oracle in (permute, duplicate):
        result = oracle(loaded, found, shapes=given, batch=batch)
        assert result.error <= EXACT_FOLD_RTOL and result.control > CONTROL, (oracle.__name__, result)
