"""com.microsoft operators: BERT, ViT and GPT-2 as onnxruntime's transformer optimizer leaves them, LLaMA as
onnxruntime-genai's model builder writes it."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

from .config import Activation, Family
from .layers import Layer, Linear, dotted, packed
from .plain import Plain

MS = "com.microsoft"


class Fused(Plain):
    """Style FUSED. Biases of output projections wait for the SkipLayerNormalization that adds them."""

    lengths: tuple[str, str] = ("", "")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._biases: dict[str, str] = {}
        if self.config.family is Family.LLAMA:
            self.suffix = ".MatMul.weight"

    def begin(self) -> str:
        c = self.config
        if c.family is Family.VIT:
            return self.image()
        if c.family is Family.LLAMA:
            ids, mask = self.ids("input_ids", "attention_mask")
            self._lengths_of(mask)
            self.cosines, self.sines = self.caches()
            return self.embedded("model/embed_tokens", c.vocabulary, ids)
        if c.family is Family.GPT2:
            ids, mask, places = self.ids("input_ids", "attention_mask", "position_ids")
            self.mask = self.cast(mask, "", TensorProto.INT32)
            words = self.embedded("transformer/wte", c.vocabulary, ids)
            return self.op("Add", words, self.embedded("transformer/wpe", c.positions, places), at="transformer")
        ids, mask, types = (self.cast(x, "", TensorProto.INT32) for x in self.ids(
            "input_ids", "attention_mask", "token_type_ids"))  # fmt: skip
        self.mask = mask
        rows = {"word_embeddings": c.vocabulary, "position_embeddings": c.positions, "token_type_embeddings": 2}
        tables = [self.parts.embedding(f"embeddings/{name}", count) for name, count in rows.items()]
        weights = [self.builder.weight(table.name, table) for table in tables]
        path = "embeddings/LayerNorm"
        return self.ops(
            "EmbedLayerNormalization", ids, types, *weights, self.scale(path), self.shift(path), at="embeddings",
            outputs=2, domain=MS, epsilon=c.epsilon,
        )[0]  # fmt: skip

    def _lengths_of(self, mask: str) -> None:
        """What GroupQueryAttention asks for: the last position of every text, and the longest length."""
        at = "model/attn_mask_reformat/attn_mask_subgraph"
        kept = self.op("ReduceSum", mask, self.number([1], at), at=at, keepdims=0)
        last = self.op("Sub", kept, self.number([1], at), at=at)
        total = self.op("Gather", self.op("Shape", mask, at=at), self.number(1, at), at=at, axis=0)
        self.lengths = self.cast(last, at, TensorProto.INT32), self.cast(total, at, TensorProto.INT32)

    def norm(self, x: str, path: str) -> tuple[str, str]:
        epsilon = self.config.epsilon
        if self.config.family is Family.LLAMA:  # an operator of onnxruntime in the default domain
            return self.op("SimplifiedLayerNormalization", x, self.scale(path), at=path, axis=-1, epsilon=epsilon), x
        y = self.op("LayerNormalization", x, self.scale(path), self.shift(path), at=path, axis=-1, epsilon=epsilon)
        return y, x

    def add_norm(self, branch: str, stream: str, at: str, path: str, first: bool) -> tuple[str, str]:
        c = self.config
        if c.family is Family.LLAMA:
            kind, more = "SkipSimplifiedLayerNormalization", [self.scale(path)]
        else:
            kind, more = "SkipLayerNormalization", [self.scale(path), self.shift(path), self._biases[branch]]
        y, *_, total = self.ops(kind, stream, branch, *more, at=path, outputs=4, domain=MS, epsilon=c.epsilon)
        made = self.builder.nodes[-1].output
        made[1] = made[2] = ""
        if c.family is Family.BERT:  # the sum itself has no consumer
            del made[1:]
        return y, total

    def attention(self, x: str, of: Layer) -> str:
        c, at, parts = self.config, of.attention, self.parts.qkv(of)
        whole = packed(of.qkv, parts)
        if c.family is Family.LLAMA:
            y = self._grouped(x, of, whole)
        elif c.family is Family.VIT and not c.packed_qkv:
            q, k, v = (self.matmul(x, part) for part in parts)
            how = {"num_heads": c.heads, "domain": MS}
            y = self.op("MultiHeadAttention", q, k, v, self.bias(whole), at=at, **how)
        else:
            how = {"num_heads": c.heads, "qkv_hidden_sizes": [part.width for part in parts], "domain": MS}
            weight = self.builder.weight(f"{dotted(of.qkv)}.weight", whole.weight)
            masks = [self.mask] if self.mask else []
            causal = int(c.family is Family.GPT2)
            y = self.op("Attention", x, weight, self.bias(whole), *masks, at=at, unidirectional=causal, **how)
        return self.down(y, self.parts.output(of))

    def _grouped(self, x: str, of: Layer, whole: Linear) -> str:
        c, i = self.config, int(of.at.rpartition(".")[2])
        q, k, v = (self.linear(x, whole), "", "") if c.packed_qkv else (self.linear(x, p) for p in self.parts.qkv(of))
        y, *present = self.ops(
            "GroupQueryAttention", q, k, v, *self.cache(i), *self.lengths, self.cosines, self.sines, at=of.attention,
            outputs=3, domain=MS, num_heads=c.heads, kv_num_heads=c.kv_heads, scale=c.head_dim**-0.5, do_rotary=1,
            rotary_interleaved=0,
        )  # fmt: skip
        self.present(i, *present)
        return y

    def turned_matmul(self, x: str, weight: str, at: str) -> str:
        return self.op("FusedMatMul", x, weight, at=at, domain=MS, alpha=1.0, transA=0, transB=1)

    def down(self, x: str, linear: Linear) -> str:
        y = self.matmul(x, linear)
        if linear.bias is not None:
            self._biases[y] = self.bias(linear)
        return y

    def made(self, x: str, of: Layer) -> str:
        """The bias goes into the activation."""
        up = self.parts.up(of.up)
        kind = {Activation.GELU: "BiasGelu", Activation.GELU_TANH: "FastGelu"}.get(self.config.activation)
        if kind is None or up.bias is None:
            return super().made(x, of)
        return self.op(kind, self.matmul(x, up), self.bias(up), at=of.activation, domain=MS)

    def activated(self, x: str, at: str) -> str:
        kinds = {Activation.GELU: "Gelu", Activation.GELU_TANH: "FastGelu"}
        if self.config.activation in kinds:
            return self.op(kinds[self.config.activation], x, at=at, domain=MS)
        if self.config.activation is Activation.QUICK_GELU:
            return self.op("QuickGelu", x, at=at, domain=MS, alpha=1.702)
        return super().activated(x, at)
