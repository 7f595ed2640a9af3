"""What the analysis finds in transformers, in every style of export, and both oracles on it.

A table of groups per block: whole heads (or what stands in for them) in front of the hidden units of the MLP, which are
found always. Extend `NETS` (tests/transformer/nets.py) by a network, `HEADS` by what is found of its attention.
"""

from __future__ import annotations

import pytest
from helpers import CONTROL, EXACT_FOLD_RTOL, EXACT_PERMUTE_RTOL
from transformer import NETS, Config, Style, build, runs_batch, shapes

from onnxfold.analyse import analyse
from onnxfold.model import load
from onnxfold.oracles import duplicate, permute

CACHED = (Style.OPSET23_3D, Style.FUSED)  # with keys and values among inputs and outputs: their heads are kept
DECOMPOSED_V = "the exporter's way to repeat one head leaves the positions inside the heads of values"
HEADS = {("multi-query", Style.DECOMPOSED): (16, DECOMPOSED_V)}
VARIANTS = {"vit-packed", "bert-relu", "gpt2-untied", "llama2-tables", "llama3-unfolded", "multi-query", "clip"}


def heads(net: str, config: Config, style: Style) -> list[int]:
    """The size of the group in a block's attention: heads, those of keys where they are shared but by all."""
    if config.gated and style in CACHED and config.kv_heads > 1:
        return []
    whole = config.kv_heads if config.kv_heads > 1 else config.heads
    return [HEADS.get((net, style), (whole, ""))[0]]


def expected(net: str, style: Style) -> list[int]:
    config = NETS[net]
    return (heads(net, config, style) + [config.mlp] * max(1, config.experts)) * config.layers


CASES = [
    pytest.param(net, style, id=f"{net}-{style.value}", marks=[pytest.mark.slow] if net in VARIANTS else [])
    for net in NETS for style in Style
]  # fmt: skip


@pytest.mark.parametrize(("net", "style"), CASES)
def test_groups_of_a_transformer(net: str, style: Style) -> None:
    config = NETS[net]
    proto = build(config, style).model()
    cached = config.gated and style in CACHED
    given = None if cached else shapes(proto, runs_batch(config, style))
    model = load(proto)
    found = analyse(model)
    assert [group.size for group in found.groups] == expected(net, style), found.refusals
    if given is not None:  # lengths that are known lose nothing
        model = load(proto, given)
        found = analyse(model)
        assert [group.size for group in found.groups] == expected(net, style), found.refusals
    for oracle, rtol in ((permute, EXACT_PERMUTE_RTOL), (duplicate, EXACT_FOLD_RTOL)):
        result = oracle(model, found, shapes=given)
        assert result.error <= rtol, (oracle.__name__, result)
        assert result.control > CONTROL, (oracle.__name__, result)
