"""What a transformer is made of: sizes, families, variants."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Family(Enum):
    """How blocks are wired and what their parameters are called (Hugging Face transformers)."""

    VIT = "vit"
    BERT = "bert"
    GPT2 = "gpt2"
    LLAMA = "llama"


class Activation(Enum):
    """Of the MLP: GELU with erf or tanh, QuickGELU (x * sigmoid(1.702 x)), SiLU, ReLU."""

    GELU = "gelu"
    GELU_TANH = "gelu_new"
    QUICK_GELU = "quick_gelu"
    SILU = "silu"
    RELU = "relu"


@dataclass(frozen=True)
class Config:
    """Sizes and variants of one network.

    `heads` query heads share `kv_heads` key and value heads of `head_dim` each; `mlp` hidden units (per expert, where
    there are `experts`, of which a token uses `experts_per_token`). `positions`: the longest sequence. ViT: square
    images of `image` pixels in patches of `patch`, `classes` outputs.

    Variants: `gated` MLPs (gate, up, down), with `packed_gate` in one weight; `packed_qkv` likewise (always so in
    GPT-2); `tied`: the embedding is the output's weight; `constant_folding` False: MatMul weights stay as PyTorch keeps
    them, [out, in], behind a Transpose; `layer_norm_op` False: LayerNorm by ReduceMean and its like, as before opset
    17; `rope_tables`: cosines and sines are looked up by position; `cache`: keys and values of earlier words are
    inputs, and those of all words outputs (always so where one node does attention's work, see styles.py).
    """

    family: Family
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int = 0
    positions: int = 0
    activation: Activation = Activation.GELU
    epsilon: float = 1e-12
    gated: bool = False
    packed_gate: bool = False
    packed_qkv: bool = False
    tied: bool = False
    experts: int = 0
    experts_per_token: int = 2
    constant_folding: bool = True
    layer_norm_op: bool = True
    rope_theta: float = 10_000.0
    rope_tables: bool = False
    cache: bool = False
    image: int = 0
    patch: int = 0
    classes: int = 0

    def __post_init__(self) -> None:
        sizes = (self.layers, self.hidden, self.heads, self.kv_heads, self.head_dim, self.mlp)
        if min(sizes) < 1 or self.heads % self.kv_heads:
            raise ValueError(f"sizes must be positive, and heads a multiple of kv_heads: {self}")
        if self.family is Family.VIT and (self.patch < 1 or self.image % self.patch or self.classes < 1):
            raise ValueError(f"a ViT needs classes, and an image that is whole patches: {self}")
        if self.family is not Family.VIT and min(self.vocabulary, self.positions) < 1:
            raise ValueError(f"a language model needs a vocabulary and positions: {self}")
        if self.family is not Family.LLAMA and (self.gated or self.experts or self.kv_heads != self.heads):
            raise ValueError(f"gates, experts and shared key heads belong to LLaMA: {self}")
        if self.cache and self.family is not Family.LLAMA:
            raise ValueError(f"only LLaMA has a cache here: {self}")
        if self.experts and self.experts_per_token > self.experts:
            raise ValueError(f"a token cannot use more experts than there are: {self}")

    @property
    def q_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def patches(self) -> int:
        return (self.image // self.patch) ** 2

    def tiny(self, **changes: int | bool | Activation) -> Config:
        """The same network with two small layers."""
        small = {"layers": 2, "hidden": 32, "heads": 4, "head_dim": 8, "mlp": 40}
        small["kv_heads"] = 4 if self.kv_heads == self.heads else 2
        if self.family is Family.VIT:
            small |= {"image": 16, "patch": 8, "classes": 5}
        else:
            small |= {"vocabulary": 53, "positions": 32}
        if self.family is Family.LLAMA:
            small["head_dim"] = 16  # GroupQueryAttention with rotary embeddings asks for a multiple
        return replace(self, **{**small, **changes})  # type: ignore[arg-type]


def _vit(hidden: int, layers: int, heads: int, **more: object) -> Config:
    sizes = {"image": 224, "patch": 32, "classes": 1000, "epsilon": 1e-12, **more}
    return Config(Family.VIT, layers, hidden, heads, heads, hidden // heads, 4 * hidden, **sizes)  # type: ignore[arg-type]


def _bert(hidden: int, layers: int, heads: int) -> Config:
    return Config(Family.BERT, layers, hidden, heads, heads, hidden // heads, 4 * hidden, 30_522, 512)


PRESETS = {
    "vit-b32": _vit(768, 12, 12),
    "vit-b16": _vit(768, 12, 12, patch=16),
    "clip-vit-b32": _vit(768, 12, 12, activation=Activation.QUICK_GELU, epsilon=1e-5),
    "bert-base": _bert(768, 12, 12),
    "minilm-l6": _bert(384, 6, 12),
    "gpt2": Config(
        Family.GPT2, 12, 768, 12, 12, 64, 3072, 50_257, 1024, Activation.GELU_TANH, 1e-5, packed_qkv=True, tied=True
    ),
    "llama2-7b": Config(
        Family.LLAMA, 32, 4096, 32, 32, 128, 11_008, 32_000, 4096, Activation.SILU, 1e-5, gated=True
    ),
    "llama3-8b": Config(
        Family.LLAMA, 32, 4096, 32, 8, 128, 14_336, 128_256, 8192, Activation.SILU, 1e-5, gated=True,
        rope_theta=500_000.0,
    ),
    "mixtral-8x7b": Config(
        Family.LLAMA, 32, 4096, 32, 8, 128, 14_336, 32_000, 32_768, Activation.SILU, 1e-5, gated=True,
        rope_theta=1_000_000.0, experts=8,
    ),
    "phi3-mini": Config(
        Family.LLAMA, 32, 3072, 32, 32, 96, 8192, 32_064, 4096, Activation.SILU, 1e-5, gated=True, packed_gate=True,
        packed_qkv=True,
    ),
}  # fmt: skip
"""The sizes that these networks were published with."""
