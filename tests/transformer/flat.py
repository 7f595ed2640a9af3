"""Opset 23 as a model builder writes it: Attention of 3-D inputs, with fewer key than query heads, and a cache."""

from __future__ import annotations

from onnx import TensorProto

from .config import Family
from .layers import Layer
from .plain import Plain


class Flat(Plain):
    """Style OPSET23_3D."""

    places = ""

    def begin(self) -> str:
        c = self.config
        if c.family is Family.VIT:
            return self.image()
        if c.family is Family.LLAMA:
            ids, self.places = self.ids("input_ids", "position_ids")
            self.cosines, self.sines = self.caches()
            return self.embedded("model/embed_tokens", c.vocabulary, ids)
        if c.family is Family.GPT2:
            ids, places = self.ids("input_ids", "position_ids")
            words = self.embedded("transformer/wte", c.vocabulary, ids)
            return self.op("Add", words, self.embedded("transformer/wpe", c.positions, places), at="transformer")
        ids, mask, types, places = self.ids("input_ids", "attention_mask", "token_type_ids", "position_ids")
        x = self.embedded("embeddings/word_embeddings", c.vocabulary, ids)
        x = self.op("Add", x, self.embedded("embeddings/token_type_embeddings", 2, types), at="embeddings")
        x = self.op("Add", x, self.embedded("embeddings/position_embeddings", c.positions, places), at="embeddings")
        kept = self.op("Cast", mask, at="", to=TensorProto.BOOL)
        kept = self.op("Unsqueeze", kept, self.number([1, 2], ""), at="")
        self.mask = self.op("Expand", kept, self._square(ids), at="")
        return self.norm(x, "embeddings/LayerNorm")[0]

    def _square(self, ids: str) -> str:
        """[batch, 1, length, length], as onnxruntime wants masks."""
        shape = self.op("Shape", ids, at="")
        batch, length = (self.op("Gather", shape, self.number([i], ""), at="", axis=0) for i in (0, 1))
        return self.op("Concat", batch, self.number([1], ""), length, length, at="", axis=0)

    def norm(self, x: str, path: str) -> tuple[str, str]:
        epsilon = self.config.epsilon
        if self.config.family is Family.LLAMA:
            return self.op("RMSNormalization", x, self.scale(path), at=path, axis=-1, epsilon=epsilon), x
        y = self.op("LayerNormalization", x, self.scale(path), self.shift(path), at=path, axis=-1, epsilon=epsilon)
        return y, x

    def add_norm(self, branch: str, stream: str, at: str, path: str, first: bool) -> tuple[str, str]:
        return self.norm(self.op("Add", stream, branch, at=at), path)

    def attention(self, x: str, of: Layer) -> str:
        c, at = self.config, of.attention
        q, k, v = self.projected(x, of)
        how = {"q_num_heads": c.heads, "kv_num_heads": c.kv_heads, "scale": c.head_dim**-0.5}
        if c.family is not Family.LLAMA:
            masks = [self.mask] if self.mask else []
            y = self.op("Attention", q, k, v, *masks, at=at, is_causal=int(c.family is Family.GPT2), **how)
            return self.linear(y, self.parts.output(of))
        rotary = (self.cosines, self.sines, self.places)
        q = self.op("RotaryEmbedding", q, *rotary, at=at, num_heads=c.heads)
        k = self.op("RotaryEmbedding", k, *rotary, at=at, num_heads=c.kv_heads)
        i = int(of.at.rpartition(".")[2])
        past = self.cache(i)
        y, *present = self.ops("Attention", q, k, v, "", *past, at=at, outputs=3, is_causal=1, **how)
        self.present(i, *present)
        return self.linear(y, self.parts.output(of))
