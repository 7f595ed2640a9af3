"""Why channels stay, for people who did not write the analysis: what a reason means, and which page says more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata


@dataclass(frozen=True)
class Topic:
    """What a kind of reason means: an anchor in the page, a title, a text, and a page of docs/."""

    anchor: str
    title: str
    text: str
    page: str

    @property
    def address(self) -> str:
        """Its page on the web; '' where the installed package does not say where that is."""
        return address(self.page, links())


INTERFACE = Topic(
    "interface", "Inputs and outputs",
    "What a model takes and returns must not change, so the channels of its inputs and outputs stay.",
    "what-folds.md",
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
    "design/channel-groups.md#from-facts-to-groups",
)  # fmt: skip
STREAM = Topic(
    "stream", "Residual streams under a norm",
    "The norm looks at all channels of the stream at once. They fold only where that is asked for (`fold_residual`).",
    "design/residual.md",
)  # fmt: skip

_BY_WORDS = (
    (re.compile(r"graph (in|out)put"), INTERFACE), (re.compile(r"no (operator )?rule"), RULE),
    (re.compile(r"((Layer|RMS|Lp)Norm|Reduce(Mean|L2|SumSquare))\w* mixes"), STREAM),
    (re.compile(r"cache|heads"), CACHE), (re.compile(r"shape|length|computes"), SHAPE),
    (re.compile(r"integer|quantiz|floating point|block"), INTEGER),
    (re.compile(r"several nodes|body|divide|tied|shared"), SHARED),
)  # fmt: skip


def topic(kind: str) -> Topic:
    """What a reason is about."""
    return next((found for words, found in _BY_WORDS if words.search(kind)), MIXED)


def address(page: str, links: Mapping[str, str]) -> str:
    """Where a page of docs/ is on the web: in the documentation, or else in the repository. '' without either.

    `links`: addresses of the project, by their usual labels.
    """
    site, repository = (_plain(links.get(label, "")) for label in ("Documentation", "Repository"))
    file, mark, anchor = page.partition("#")
    if site:
        return f"{site}/{file.removesuffix('.md')}.html{mark}{anchor}"  # mkdocs.yml: no use_directory_urls
    return f"{repository}/blob/HEAD/docs/{page}" if repository else ""


def _plain(address: str) -> str:
    return address.rstrip("/") if address.startswith("https://") else ""


def links() -> Mapping[str, str]:
    """The addresses that the installed package has of its project, by label."""
    try:
        found = metadata("onnxfold").get_all("Project-URL") or []
    except PackageNotFoundError:
        return {}
    return dict(link.partition(", ")[::2] for link in found)
