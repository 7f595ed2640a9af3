"""Why channels stay, for people who did not write the analysis: what a reason means, and which page says more."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata


@dataclass(frozen=True)
class Topic:
    """What a kind of reason means: an anchor in the page, a title, a text, and a page of docs/."""

    anchor: str
    title: str
    text: str
    page: str


INTERFACE = Topic(
    "interface", "Inputs and outputs",
    "What a model takes and returns must not change, so the channels of its inputs and outputs stay.",
    "design/channel-groups.md",
)  # fmt: skip
RULE = Topic(
    "rule", "Operators without a rule",
    "Nothing is known of what the operator does to channels, so it keeps them. A rule of a few lines changes that.",
    "adding-an-op.md",
)  # fmt: skip
CACHE = Topic(
    "cache", "Key-value caches",
    "Heads of caches among the inputs and outputs are part of the interface. They fold only where that is asked for.",
    "design/channel-groups.md#key-value-caches",
)  # fmt: skip
SHAPE = Topic(
    "shape", "Lengths that are computed or unknown",
    "The graph uses the length of this axis as a number, or does not say what it is. Fixed input shapes often help.",
    "design/channel-groups.md#shape-arithmetic",
)  # fmt: skip
INTEGER = Topic(
    "integer", "Weights stored as integers",
    "Channels of packed or quantized weights must stay in whole blocks, and not every scheme can be cut.",
    "design/quantized-models.md",
)  # fmt: skip
SHARED = Topic(
    "shared", "Weights that are used in several ways",
    "Several nodes, or the body of a loop or a branch, use the same weight and would need it in different sizes.",
    "design/channel-groups.md#weights-that-stand-on-one-stored-tensor",
)  # fmt: skip
MIXED = Topic(
    "mixed", "Channels that are mixed or told apart",
    "The operator combines channels along this axis, or treats them by their position, so they cannot be exchanged.",
    "design/channel-groups.md",
)  # fmt: skip

_BY_WORDS = (
    (re.compile(r"graph (in|out)put"), INTERFACE), (re.compile(r"no (operator )?rule"), RULE),
    (re.compile(r"cache|heads"), CACHE), (re.compile(r"shape|length|computes"), SHAPE),
    (re.compile(r"integer|quantiz|floating point|block"), INTEGER),
    (re.compile(r"several nodes|body|divide|tied|shared"), SHARED),
)  # fmt: skip


def topic(kind: str) -> Topic:
    """What a reason is about."""
    return next((found for words, found in _BY_WORDS if words.search(kind)), MIXED)


def site() -> str:
    """The address of the documentation, with a slash at the end, as the installed package has it; '' where it names
    none."""
    try:
        links = metadata("onnxfold").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    found = dict(link.partition(", ")[::2] for link in links)
    address = found.get("Documentation", "")
    return address.rstrip("/") + "/" if address.startswith("https://") else ""
