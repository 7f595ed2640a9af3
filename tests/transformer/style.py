"""What every style has to say, and the wiring of blocks that all styles share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from .builder import Builder
from .config import Config, Family
from .layers import Layer, Linear, Parts, layer, packed

BATCH, SEQUENCE = "batch", "sequence"
PAST, TOTAL = "past_sequence_length", "total_sequence_length"


class Style(ABC):
    """Emits the parts of a network in its own operators and names.

    `mask`, `cosines`, `sines`, `width`: tensors that all blocks or the head share, once `begin` has made them; `pasts`
    are the caches of all blocks, where these are joined to keys and values before.
    """

    mask = cosines = sines = width = ""
    pasts: Sequence[tuple[str, str]] = ()

    def __init__(self, config: Config, builder: Builder) -> None:
        self.config, self.builder, self.parts = config, builder, Parts(config)

    def op(self, kind: str, *inputs: str, at: str = "", **attributes: Any) -> str:
        """A node with one output."""
        return self.ops(kind, *inputs, at=at, **attributes)[0]

    @abstractmethod
    def ops(self, kind: str, *inputs: str, at: str = "", outputs: int = 1, **attributes: Any) -> list[str]:
        """A node of module `at`, named as this style names it: its outputs."""

    @abstractmethod
    def number(self, value: Any, at: str, dtype: Any = None) -> str:
        """A constant of module `at`: integers as int64, floats in the model's type unless `dtype` says otherwise."""

    def cache(self, i: int) -> tuple[str, str]:
        """The inputs that hold keys and values of earlier words."""
        c = self.config
        shape = [BATCH, c.kv_heads, PAST, c.head_dim]
        key, value = (self.builder.input(f"past_key_values.{i}.{part}", shape) for part in ("key", "value"))
        return key, value

    def present(self, i: int, key: str, value: str) -> None:
        """The outputs that hold the keys and values of all words."""
        c = self.config
        for part, tensor in (("key", key), ("value", value)):
            self.builder.output(tensor, f"present.{i}.{part}", [BATCH, c.kv_heads, TOTAL, c.head_dim])

    @abstractmethod
    def begin(self) -> str:
        """Inputs, what all blocks share (masks, cosines and sines), and embeddings: the residual stream."""

    @abstractmethod
    def norm(self, x: str, path: str) -> tuple[str, str]:
        """LayerNorm or RMSNorm of the stream: (normalized, the stream from here on)."""

    @abstractmethod
    def add_norm(self, branch: str, stream: str, at: str, path: str, first: bool) -> tuple[str, str]:
        """Add a branch (`first`: attention's), then normalize: (normalized, stream)."""

    @abstractmethod
    def linear(self, x: str, linear: Linear) -> str:
        """A linear layer."""

    @abstractmethod
    def activated(self, x: str, at: str) -> str:
        """The MLP's activation."""

    @abstractmethod
    def attention(self, x: str, of: Layer) -> str:
        """Attention and its output projection."""

    @abstractmethod
    def mlp(self, x: str, of: Layer) -> str:
        """The MLP, or the mixture of experts."""

    def projected(self, x: str, of: Layer) -> list[str]:
        """Queries, keys and values, each from a layer of its own or out of one that gives all three."""
        parts = self.parts.qkv(of)
        if not self.config.packed_qkv:
            return [self.linear(x, part) for part in parts]
        return self.unpacked(self.linear(x, packed(of.qkv, parts)), [part.width for part in parts], of.attention)

    @abstractmethod
    def unpacked(self, y: str, widths: Sequence[int], at: str) -> list[str]:
        """Parts of these widths, which lie beside each other in `y`."""

    @abstractmethod
    def classes(self, x: str, head: Linear) -> str:
        """Scores of the classes, from the first token."""

    @abstractmethod
    def next_words(self, x: str) -> str:
        """Scores of the words that may follow, by the head of a language model."""

    def end(self, x: str) -> None:
        """The head and the outputs, from the last normalized stream."""
        c = self.config
        if c.family is Family.BERT:
            self.builder.output(x, "last_hidden_state", [BATCH, SEQUENCE, c.hidden])
        elif c.family is Family.VIT:
            head = self.parts.linear("classifier", c.hidden, c.classes)
            self.builder.output(self.classes(x, head), "logits", [BATCH, c.classes])
        else:
            self.builder.output(self.next_words(x), "logits", [BATCH, SEQUENCE, c.vocabulary])

    def run(self) -> Builder:
        """The whole network."""
        c = self.config
        layers = [layer(c, i) for i in range(c.layers)]
        if c.family is Family.BERT:
            x = self.begin()
            for each in layers:
                x, _ = self.add_norm(self.attention(x, each), x, each.after_attention, each.first, True)
                x, _ = self.add_norm(self.mlp(x, each), x, each.after_mlp, each.second, False)
        else:
            x, stream = self.norm(self.begin(), layers[0].first)
            last = {Family.VIT: "vit/layernorm", Family.GPT2: "transformer/ln_f", Family.LLAMA: "model/norm"}[c.family]
            following = [each.first for each in layers[1:]] + [last]
            for each, path in zip(layers, following, strict=True):
                x, stream = self.add_norm(self.attention(x, each), stream, each.after_attention, each.second, True)
                x, stream = self.add_norm(self.mlp(x, each), stream, each.after_mlp, path, False)
        self.end(x)
        return self.builder
