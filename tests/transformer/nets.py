"""Small networks that tests take: every family, and the variants that change what a graph looks like."""

from __future__ import annotations

from .config import PRESETS, Activation, Config, Family
from .styles import Style

NETS = {
    "vit": PRESETS["vit-b32"].tiny(),
    "vit-packed": PRESETS["vit-b32"].tiny(packed_qkv=True, constant_folding=False),
    "clip": PRESETS["clip-vit-b32"].tiny(),
    "bert": PRESETS["bert-base"].tiny(),
    "bert-relu": PRESETS["bert-base"].tiny(activation=Activation.RELU, layer_norm_op=False),
    "gpt2": PRESETS["gpt2"].tiny(),
    "gpt2-untied": PRESETS["gpt2"].tiny(tied=False, layer_norm_op=False),
    "llama2": PRESETS["llama2-7b"].tiny(),
    "llama2-tables": PRESETS["llama2-7b"].tiny(rope_tables=True, tied=True),
    "llama3": PRESETS["llama3-8b"].tiny(),
    "llama3-unfolded": PRESETS["llama3-8b"].tiny(constant_folding=False),
    "llama2-cache": PRESETS["llama2-7b"].tiny(cache=True),
    "llama3-cache": PRESETS["llama3-8b"].tiny(cache=True),
    "multi-query": PRESETS["llama3-8b"].tiny(kv_heads=1),
    "geglu": PRESETS["llama3-8b"].tiny(activation=Activation.GELU),
    "phi3": PRESETS["phi3-mini"].tiny(),
    "mixtral": PRESETS["mixtral-8x7b"].tiny(experts=3),
}


def runs_batch(config: Config, style: Style) -> int:
    """How many samples to run: onnxruntime 1.31's RotaryEmbedding takes cosines without positions, as torch writes
    them, for one sample only."""
    return 1 if style is Style.OPSET23 and config.family is Family.LLAMA else 2
