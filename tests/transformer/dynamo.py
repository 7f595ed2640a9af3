"""`torch.onnx.export(..., dynamo=True)` of transformers' scaled-dot-product attention: opset 20 and 23.

Node for node what torch 2.15 writes for transformers 5.23. With opset 23 the exporter finds Attention,
RMSNormalization and RotaryEmbedding; key and value heads are still repeated before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from .config import Activation, Family
from .experts import mixture
from .fx import Fx
from .layers import Layer, Linear, dotted, packed
from .style import BATCH, SEQUENCE, TOTAL
from .traced import least, rotary_frequencies
from .weights import Turned

FIRST, LAST = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)


class Dynamo(Fx):
    """Style DYNAMO; with `modern` OPSET23."""

    modern = False
    batch: str | int = -1
    length: str | int = 0
    total = ""
    angles = ""

    def begin(self) -> str:
        c = self.config
        if c.family is Family.VIT:
            return self._image()
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if c.family is Family.BERT else [])]
        lengths = [SEQUENCE, TOTAL if c.cache else SEQUENCE, SEQUENCE]
        ids, mask, *types = (
            self.builder.input(name, [BATCH, length], TensorProto.INT64)
            for name, length in zip(names, lengths, strict=False)
        )
        if c.cache:
            return self._continued(ids, mask)
        self.batch = self.op("Shape", ids, start=0, end=1)
        rows = self.op("Squeeze", self.batch, name="sym_size_int_4")
        self.length = self.op("Shape", types[0] if types else mask, start=1, end=2)
        columns = self.op("Squeeze", self.length, name="sym_size_int_7")
        if c.family is Family.BERT:
            places = self.builder.table("embeddings.position_ids", np.arange(c.positions)[None])
            places = self.cut(places, 1, 0, self.length)
            x = self.op("Add", self._embedded("embeddings/word_embeddings", c.vocabulary, ids),
                        self._embedded("embeddings/token_type_embeddings", 2, types[0]))  # fmt: skip
            x = self.op("Add", x, self._embedded("embeddings/position_embeddings", c.positions, places))
            x, _ = self.norm(x, "embeddings/LayerNorm")
            kept = self.op("Cast", mask, name="_to_copy", to=TensorProto.BOOL)
            self._mask(kept, rows, self.op("Range", self.number(0), columns, self.number(1)), False)
            return x
        if c.family is Family.GPT2:
            ids = self.shaped(ids, -1, self.length)
            x = self._words("lm_head.weight" if c.tied else "transformer.wte.weight", ids)
            counted = self.op("Range", self.number(0), columns, self.number(1))
            place = self._embedded("transformer/wpe", c.positions, self.unsqueezed(counted, 0))
            x = self.op("Add", x, place)
            mask = self.shaped(mask, self.batch, -1)
        else:
            x = self._words("model.embed_tokens.weight", ids)
            counted = self.op("Range", self.number(0), columns, self.number(1))
        kept = self.op("Cast", mask, name="_to_copy", to=TensorProto.BOOL)
        self._mask(kept, rows, counted, True)
        if c.family is Family.LLAMA:
            self._rotary(counted)
        return x

    def _continued(self, ids: str, mask: str) -> str:
        """LLaMA behind words of which a cache has the keys and values."""
        c = self.config
        self.pasts = [self.cache(i) for i in range(c.layers)]
        self.length = self.op("Shape", ids, start=1, end=2)
        new = self.op("Squeeze", self.length, name="sym_size_int_12")
        self.batch = self.op("Shape", self.pasts[0][1], start=0, end=1)
        rows = self.op("Squeeze", self.batch, name="sym_size_int_17")
        past = self.op("Squeeze", self.op("Shape", self.pasts[0][1], start=2, end=3), name="sym_size_int_18")
        whole = self.op("Add", new, past)
        x = self._words("model.embed_tokens.weight", ids)
        counted = self.op("Add", self.op("Range", self.number(0), new, self.number(1)), past)
        kept = self.op("Cast", mask, name="_to_copy", to=TensorProto.BOOL)
        self._mask(kept, rows, counted, True, self.op("Range", self.number(0), whole, self.number(1)))
        self.total = self.op("Reshape", whole, self.number([-1]), name="val", allowzero=0)
        self.mask = self.op("Expand", self.mask, self.target(self.batch, 1, self.length, self.total))
        self._rotary(counted)
        return x

    def _mask(self, kept: str, rows: str, counted: str, causal: bool, every: str = "") -> None:
        """Sets `mask` [batch, 1, length, total], bool. `every`: the positions of all words, with those of the cache."""
        batches = self.op("Range", self.number(0), rows, self.number(1))
        batches = self.unsqueezed(self.unsqueezed(batches, 1, 2), 3)
        first = self.unsqueezed(counted, 0, 1)
        here, there = self.unsqueezed(first, 3), self.unsqueezed(self.unsqueezed(every, 0, 1) if every else first, 2)
        seen = self.op("LessOrEqual", there, here, name="le") if causal else (
            self.op("GreaterOrEqual", here, self.number(0), name="ge"))  # fmt: skip
        seen = self.op("And", self.builder.table("new_ones", np.array(True)), seen)
        shape = self.op("Shape", self.op("Max", batches, there), start=0)
        index = [self.op("Unsqueeze", self.op("Expand", x, shape, name="val"), self.number([-1]), name="val")
                 for x in (batches, there)]  # fmt: skip
        found = self.op("GatherND", kept, self.op("Concat", *index, name="val", axis=-1), batch_dims=0)
        self.mask = self.op("And", seen, found)

    def _rotary(self, counted: str) -> None:
        c = self.config
        frequencies = rotary_frequencies(c.rope_theta, c.head_dim)
        places = self.op("Cast", self.unsqueezed(counted, 0, 2), name="_to_copy", to=TensorProto.FLOAT)
        table = self.builder.table("model.rotary_emb.inv_freq", frequencies, np.float32)
        self.angles = self.op("Mul", places, table)
        if self.modern:
            return
        angles = self.op("Concat", self.angles, self.angles, axis=-1)
        self.cosines, self.sines = (self._own(self.op(kind, angles)) for kind in ("Cos", "Sin"))

    def _own(self, x: str) -> str:
        """From float32 to the model's type."""
        if self.builder.element == TensorProto.FLOAT:
            return x
        return self.op("Cast", x, name="_to_copy", to=self.builder.element)

    def norm(self, x: str, path: str) -> tuple[str, str]:
        c, g = self.config, self.builder
        scale = g.weight(f"{dotted(path)}.weight", self.parts.scale(path), (c.hidden,))
        if c.family is not Family.LLAMA:
            shift = g.weight(f"{dotted(path)}.bias", self.parts.shift(path), (c.hidden,))
            return self.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=c.epsilon, stash_type=1), x
        if self.modern:
            return self.op("RMSNormalization", x, scale, name="mul", axis=-1, epsilon=c.epsilon, stash_type=1), x
        wide = x
        if g.element != TensorProto.FLOAT:
            wide = self.op("Cast", x, name="_to_copy", to=TensorProto.FLOAT)
        square = self.op("Pow", wide, self.number(2.0, dtype=np.float32))
        mean = self.op("ReduceMean", square, self.number([-1]), keepdims=1, noop_with_empty_axes=0)
        root = self.op("Sqrt", self.op("Add", mean, self.number(c.epsilon, dtype=np.float32)))
        y = self.op("Mul", wide, self.op("Reciprocal", root, name="rsqrt"))
        return self.op("Mul", scale, self._own(y)), x

    def add_norm(self, branch: str, stream: str, at: str, path: str, first: bool) -> tuple[str, str]:
        turned = self.config.family is Family.LLAMA or (self.config.family is Family.GPT2 and not first)
        return self.norm(self.op("Add", *((stream, branch) if turned else (branch, stream))), path)

    def linear(self, x: str, linear: Linear) -> str:
        """MatMul and Add, or GPT-2's Gemm on rows."""
        if self.config.family is Family.GPT2:
            weight = self.builder.weight(f"{dotted(linear.path)}.weight", linear.weight)
            x = self.shaped(x, -1, linear.weight.size[0])
            y = self.op("Gemm", x, weight, self._bias(linear), name="addmm", alpha=1.0, beta=1.0, transA=0, transB=0)
            return self.shaped(y, self.batch, self.length, linear.width)
        if linear.bias is None:
            return self._matmul(x, linear, "linear")
        return self.op("Add", self._matmul(x, linear, "val"), self._bias(linear), name="linear")

    def _matmul(self, x: str, linear: Linear, name: str) -> str:
        if self.config.constant_folding:
            weight = self.builder.weight(f"val_{self._next()}", linear.weight)
        else:
            stored = self.builder.weight(f"{dotted(linear.path)}.weight", Turned(linear.weight))
            weight = self.op("Transpose", stored, name="val", perm=[1, 0])
        return self.op("MatMul", x, weight, name=name)

    def _bias(self, linear: Linear) -> str:
        assert linear.bias is not None
        return self.builder.weight(f"{dotted(linear.path)}.bias", linear.bias, (linear.width,))

    def attention(self, x: str, of: Layer) -> str:
        c = self.config
        q, k, v = (self._heads(each) for each in self.projected(x, of))
        if c.family is Family.LLAMA:
            q, k = self._rotated(q, c.heads), self._rotated(k, c.kv_heads)
        if c.cache:
            i = int(of.at.rpartition(".")[2])
            k, v = (self.op("Concat", *pair, axis=-2) for pair in zip(self.pasts[i], (k, v), strict=True))
            self.present(i, k, v)
            k, v = f"present.{i}.key", f"present.{i}.value"
        if c.heads > c.kv_heads:
            k, v = self._repeated(k), self._repeated(v)
        y = self.op("Transpose", self._attend(q, k, v), perm=[0, 2, 1, 3])
        if c.family is Family.GPT2:
            return self.linear(y, self.parts.output(of))
        last = c.q_width if isinstance(self.length, int) else -1
        return self.linear(self.shaped(y, self.batch, self.length, last), self.parts.output(of))

    def unpacked(self, y: str, widths: Sequence[int], at: str) -> list[str]:
        if self.config.family is Family.GPT2:
            return self.split(y, len(widths))
        begins = np.cumsum([0, *widths[:-1]]).tolist()
        return [self.cut(y, 2, begin, end) for begin, end in zip(begins, [*begins[1:], LAST], strict=True)]

    def _heads(self, x: str) -> str:
        c = self.config
        heads = -1 if isinstance(self.length, str) else c.heads
        return self.op("Transpose", self.shaped(x, self.batch, self.length, heads, c.head_dim), perm=[0, 2, 1, 3])

    def _rotated(self, x: str, heads: int) -> str:
        """x cos + [-x2, x1] sin."""
        if self.modern:
            cosines, sines = (self._own(self.op(kind, self.angles, name="val")) for kind in ("Cos", "Sin"))
            return self.op("RotaryEmbedding", x, cosines, sines, name="add", interleaved=0, num_heads=heads)
        if not self._counts["unsqueezed tables"]:
            self._counts["unsqueezed tables"] += 1
            self.cosines, self.sines = self.unsqueezed(self.cosines, 1), self.unsqueezed(self.sines, 1)
        straight, half = self.op("Mul", x, self.cosines), self.config.head_dim // 2
        left, right = self.cut(x, 3, 0, half), self.cut(x, 3, half, LAST)
        across = self.op("Concat", self.op("Neg", right), left, axis=-1)
        return self.op("Add", straight, self.op("Mul", across, self.sines))

    def _repeated(self, x: str) -> str:
        c, times = self.config, self.config.heads // self.config.kv_heads
        length = self.total or self.length
        wide = self.target(self.batch, c.kv_heads, times, length, c.head_dim)
        x = self.op("Expand", self.unsqueezed(x, 2), wide)
        return self.shaped(x, self.batch, c.heads, length, c.head_dim, name="_unsafe_view")

    def _attend(self, q: str, k: str, v: str) -> str:
        """scaled_dot_product_attention."""
        scale, name = self.config.head_dim**-0.5, "scaled_dot_product_attention"
        if self.modern:
            how = {"is_causal": 0, "scale": scale, "softcap": 0.0, "qk_matmul_output_mode": 0}
            return self.op("Attention", q, k, v, self.mask, name=name, **how)
        turned = self._turned(k)
        root = self.number(scale**0.5)
        q, k = self.op("Mul", q, root, name="val"), self.op("Mul", turned, root, name="val")
        if not self._counts["mask as numbers"]:
            self._counts["mask as numbers"] += 1
            self.mask = self.op("Where", self.mask, self.number(0.0), self.number(least(self.builder.dtype)))
        scores = self.op("Add", self.op("MatMul", q, k, name="val"), self.mask, name="val")
        shares = self.op("Softmax", scores, axis=-1)
        shares = self.op("Where", self.op("IsNaN", shares), self.number(0.0), shares)
        return self.op("MatMul", shares, v, name=name)

    def _turned(self, k: str) -> str:
        """The last two axes exchanged, by way of three dimensions."""

        def part(begin: int, end: int) -> str:
            return self.op("Slice", shape, self.number([begin]), self.number([end]), name="val")

        shape = self.op("Shape", k, start=0)
        width, length, rest = part(-1, LAST), part(-2, -1), part(FIRST, -2)
        flat = self.op("Concat", self.number([-1]), length, width, name="val", axis=0)
        y = self.op("Transpose", self.op("Reshape", k, flat, name="val", allowzero=0), name="val", perm=[0, 2, 1])
        whole = self.op("Concat", rest, width, length, name="val", axis=0)
        return self.op("Reshape", y, whole, name="val", allowzero=0)

    def mlp(self, x: str, of: Layer) -> str:
        c = self.config
        if c.experts:
            return mixture(self, x, of)
        if not c.gated:
            return self.linear(self.activated(self.linear(x, self.parts.up(of.up))), self.parts.down(of.down))
        gate, up = self.parts.up(of.gate), self.parts.up(of.up)
        if c.packed_gate:
            left, right = self.split(self.linear(x, packed(of.gate_up, (gate, up))), 2)
            y = self.op("Mul", right, self.activated(left))
        else:
            left = self.activated(self.linear(x, gate))
            y = self.op("Mul", left, self.linear(x, up))
        return self.linear(y, self.parts.down(of.down))

    def activated(self, x: str, at: str = "") -> str:
        match self.config.activation:
            case Activation.GELU:
                return self.op("Gelu", x, approximate="none")
            case Activation.GELU_TANH:
                half = self.op("Mul", x, self.number(0.5))
                cube = self.op("Mul", self.op("Pow", x, self.number(3.0)), self.number(0.044715))
                y = self.op("Tanh", self.op("Mul", self.op("Add", x, cube), self.number((2 / np.pi) ** 0.5)))
                return self.op("Mul", half, self.op("Add", y, self.number(1.0)))
            case Activation.QUICK_GELU:
                return self.op("Mul", x, self.op("Sigmoid", self.op("Mul", x, self.number(1.702)), name="sigmoid"))
            case Activation.SILU:
                return self.op("Mul", x, self.op("Sigmoid", x), name="silu")
            case Activation.RELU:
                return self.op("Relu", x)

    def classes(self, x: str, head: Linear) -> str:
        x = self.op("Gather", x, self.number(0), name="select", axis=1)
        weight = self.builder.weight("classifier.weight", Turned(head.weight))
        return self.op("Gemm", x, weight, self._bias(head), name="linear", alpha=1.0, beta=1.0, transA=0, transB=1)

    def next_words(self, x: str) -> str:
        if self.config.family is Family.GPT2:
            x = self.shaped(x, -1, self.length, self.config.hidden)
        return self._matmul(x, self.parts.head(), "linear")

    def _image(self) -> str:
        c, g = self.config, self.builder
        pixels = g.input("pixel_values", [BATCH, 3, c.image, c.image])
        batch = self.op("Shape", pixels, start=0, end=1)
        path = "vit/embeddings/patch_embeddings/projection"
        kernel = self.parts.linear(path, 3 * c.patch**2, c.hidden)
        weight = g.weight(f"{dotted(path)}.weight", Turned(kernel.weight), (c.hidden, 3, c.patch, c.patch))
        sides = {"kernel_shape": [c.patch] * 2, "strides": [c.patch] * 2, "pads": [0] * 4, "dilations": [1, 1]}
        x = self.op("Conv", pixels, weight, self._bias(kernel), group=1, auto_pad="NOTSET", **sides)
        x = self.op("Transpose", self.shaped(x, -1, c.hidden, c.patches), perm=[0, 2, 1])
        at = "vit/embeddings"
        token = g.weight("vit.embeddings.cls_token", self.parts.embedding(at, 1, ".cls_token"), (1, 1, c.hidden))
        x = self.op("Concat", self.op("Expand", token, self.target(batch, 1, 1)), x, axis=1)
        places = self.parts.embedding(at, c.patches + 1, ".position_embeddings")
        x = self.op("Add", x, g.weight(places.name, places, (1, c.patches + 1, c.hidden)))
        self.length = c.patches + 1
        seen = g.table("ge", np.ones((1, 1, self.length, 1), bool))
        self.mask = self.op("Expand", seen, self.target(batch, 1, self.length, self.length))
        return x

    def _words(self, name: str, ids: str) -> str:
        return self.op("Gather", self.builder.weight(name, self.parts.words()), ids, axis=0)

    def _embedded(self, path: str, rows: int, ids: str) -> str:
        table = self.parts.embedding(path, rows)
        return self.op("Gather", self.builder.weight(table.name, table), ids, axis=0)


class Modern(Dynamo):
    """Style OPSET23."""

    modern = True
