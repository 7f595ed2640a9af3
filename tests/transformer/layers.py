"""Where the parts of a block stand in Hugging Face's modules, and the parameters that they hold in every style."""

from __future__ import annotations

from dataclasses import dataclass

from .config import Config, Family
from .weights import Drawn, Joined, Source, Turned


@dataclass(frozen=True)
class Layer:
    """Module paths of one block; parts are joined by slashes, as in node names ("model/layers.0/self_attn")."""

    at: str
    attention: str
    q: str
    k: str
    v: str
    qkv: str
    o: str
    mlp: str
    up: str
    down: str
    activation: str
    first: str
    second: str
    after_attention: str
    after_mlp: str
    gate: str = ""
    gate_up: str = ""


def layer(config: Config, i: int) -> Layer:
    """Block number `i`. `after_...`: the module that adds the residual stream."""
    if config.family is Family.BERT:
        at = f"encoder/layer.{i}"
        attention, hidden, down = f"{at}/attention", f"{at}/intermediate", f"{at}/output"
        q, k, v, qkv = (f"{attention}/self/{name}" for name in ("query", "key", "value", "qkv"))
        return Layer(
            at, f"{attention}/self", q, k, v, qkv, f"{attention}/output/dense", hidden, f"{hidden}/dense",
            f"{down}/dense", f"{hidden}/intermediate_act_fn", f"{attention}/output/LayerNorm", f"{down}/LayerNorm",
            f"{attention}/output", down,
        )  # fmt: skip
    names = {
        Family.VIT: "vit/layers attention q_proj k_proj v_proj qkv_proj o_proj fc1 fc2 activation_fn "
                    "layernorm_before layernorm_after",
        Family.GPT2: "transformer/h attn c_attn/q c_attn/k c_attn/v c_attn c_proj c_fc c_proj act ln_1 ln_2",
        Family.LLAMA: "model/layers self_attn q_proj k_proj v_proj qkv_proj o_proj up_proj down_proj act_fn "
                      "input_layernorm post_attention_layernorm",
    }[config.family].split()  # fmt: skip
    at = f"{names[0]}.{i}"
    attention, mlp = f"{at}/{names[1]}", f"{at}/mlp"
    q, k, v, qkv, o = (f"{attention}/{name}" for name in names[2:7])
    up, down, activation = (f"{mlp}/{name}" for name in names[7:10])
    first, second = (f"{at}/{name}" for name in names[10:])
    gate, gate_up = f"{mlp}/gate_proj", f"{mlp}/gate_up_proj"
    return Layer(at, attention, q, k, v, qkv, o, mlp, up, down, activation, first, second, at, at, gate, gate_up)


def dotted(path: str) -> str:
    """The name of a module as its parameters have it."""
    return path.replace("/", ".")


@dataclass(frozen=True)
class Linear:
    """A linear layer: its module path, weight [in, out] and bias [1, out] (None: without)."""

    path: str
    weight: Source
    bias: Source | None

    @property
    def width(self) -> int:
        return self.weight.size[1]


class Parts:
    """All parameters of a network as they are drawn, whatever a style then makes of them."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def linear(self, path: str, rows: int, columns: int, alike: tuple[bool, bool] = (False, False)) -> Linear:
        """Biases, where the family has any, are alike where the columns are."""
        weight = Drawn(f"{dotted(path)}.weight", (rows, columns), rows**-0.5, alike=alike)
        if self.config.family is Family.LLAMA:
            return Linear(path, weight, None)
        return Linear(path, weight, Drawn(f"{dotted(path)}.bias", (1, columns), 0.2, alike=(False, alike[1])))

    def qkv(self, of: Layer) -> tuple[Linear, Linear, Linear]:
        c, heads = self.config, (False, True)
        widths = ((of.q, c.q_width), (of.k, c.kv_width), (of.v, c.kv_width))
        q, k, v = (self.linear(path, c.hidden, width, heads) for path, width in widths)
        return q, k, v

    def output(self, of: Layer) -> Linear:
        return self.linear(of.o, self.config.q_width, self.config.hidden, (True, False))

    def up(self, path: str) -> Linear:
        """A layer that makes hidden units: up and gate projections."""
        return self.linear(path, self.config.hidden, self.config.mlp, (False, True))

    def down(self, path: str) -> Linear:
        return self.linear(path, self.config.mlp, self.config.hidden, (True, False))

    def scale(self, path: str) -> Drawn:
        """The weight of a normalization."""
        return Drawn(f"{dotted(path)}.weight", (1, self.config.hidden), 0.1, 1.0)

    def shift(self, path: str) -> Drawn:
        return Drawn(f"{dotted(path)}.bias", (1, self.config.hidden), 0.1)

    def head(self) -> Linear:
        """Of a language model: the embedding again where that is tied."""
        if self.config.tied:
            return Linear("lm_head", Turned(self.words()), None)
        return Linear("lm_head", self.linear("lm_head", self.config.hidden, self.config.vocabulary).weight, None)

    def words(self) -> Drawn:
        paths = {Family.BERT: "embeddings/word_embeddings", Family.GPT2: "transformer/wte"}
        return self.embedding(paths.get(self.config.family, "model/embed_tokens"), self.config.vocabulary)

    def embedding(self, path: str, rows: int, suffix: str = ".weight") -> Drawn:
        return Drawn(f"{dotted(path)}{suffix}", (rows, self.config.hidden))


def packed(path: str, parts: tuple[Linear, ...]) -> Linear:
    """Linear layers of one input in one weight, beside each other."""
    biases = tuple(part.bias for part in parts if part.bias is not None)
    return Linear(path, Joined(tuple(part.weight for part in parts)), Joined(biases) if biases else None)
