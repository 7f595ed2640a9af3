"""What the analysis finds in transformers, in every style of export, and both oracles on it.

A table of groups per block: whole heads (or what stands in for them), then the hidden units of the MLP, which are found
always. Extend `NETS` (tests/transformer/nets.py) by a network.
"""

from __future__ import annotations

import pytest
from caching import CACHED, cached
from helpers import CONTROL, EXACT_FOLD_RTOL, EXACT_PERMUTE_RTOL
from transformer import NETS, Config, Style, build, runs_batch, shapes

from onnxfold.analysis.analyze import analyze
from onnxfold.model.model import load
from onnxfold.testing import duplicate, permute

VARIANTS = (
    "vit-packed", "bert-relu", "gpt2-untied", "llama2-tables", "llama3-unfolded", "multi-query", "clip", "llama2-cache",
    "geglu",
)  # fmt: skip


def heads(config: Config, style: Style) -> list[int]:
    """The sizes of groups in a block's attention: heads; those of keys, where they are shared but not by all.

    Where keys and values are inputs, the same number of query heads can go for each of theirs.
    """
    if cached(config, style) and config.kv_heads > 1:
        shared = config.heads // config.kv_heads
        return [shared] if shared > 1 and style not in CACHED else []
    return [config.kv_heads if config.kv_heads > 1 else config.heads]


def expected(net: str, style: Style) -> list[int]:
    config = NETS[net]
    return (heads(config, style) + [config.mlp] * max(1, config.experts)) * config.layers


CASES = [
    pytest.param(net, style, id=f"{net}-{style.value}", marks=[pytest.mark.slow] if net in VARIANTS else [])
    for net in NETS for style in Style
]  # fmt: skip


@pytest.mark.parametrize(("net", "style"), CASES)
def test_groups_of_a_transformer(net: str, style: Style) -> None:
    config = NETS[net]
    proto = build(config, style).model()
    batch = runs_batch(config, style)
    given = shapes(proto, batch)  # no words in caches
    for known in (None, given):  # lengths that are known lose nothing
        model = load(proto, known)
        found = analyze(model)
        assert [group.size for group in found.groups] == expected(net, style), found.refusals
    for oracle, rtol in ((permute, EXACT_PERMUTE_RTOL), (duplicate, EXACT_FOLD_RTOL)):
        result = oracle(model, found, shapes=given, batch=batch)
        assert result.error <= rtol, (oracle.__name__, result)
        assert result.control > CONTROL, (oracle.__name__, result)
