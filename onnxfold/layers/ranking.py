"""Which layers of a model are alike: ranked pairs as data, as JSON and as a table. Nothing is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..errors import NothingToFoldError
from ..evidence import gather_evidence
from ..features import Method
from ..images import Preprocess
from ..model import load
from ..progress import Progress, silent
from ..recover import Recovery
from ..report import SCHEMA
from ..request import check_seed, one_of
from ..samples import Effort
from ..session import resolve_providers
from ..stages import Source, analysed, named
from ..tables import new_table, plain
from .align import seats
from .blocks import blocks, whole_blocks
from .find import Left, layers
from .rank import Class, Pair, alone, pairs, rank
from .similarity import Metric


@dataclass(frozen=True)
class LayersReport:
    """The distances of all pairs that could share a weight, the nearest first; `kinds` by class, with all names;
    `left`: layers that cannot share, and why. `samples` describes what a metric that needs samples was measured on."""

    model: str
    metric: str
    aligned: bool
    samples: str | None
    pairs: tuple[Pair, ...]
    kinds: tuple[Class, ...]
    left: tuple[Left, ...]

    @property
    def verdict(self) -> str:
        """One line that says what was found."""
        units = sum(len(kind.units) for kind in self.kinds)
        return f"{units} layers in {len(self.kinds)} shapes, {len(self.pairs)} pairs could share a weight"

    def to_json(self) -> str:
        """Everything but the matrices, which the pairs give."""
        data = {
            "schema": SCHEMA, "model": self.model, "metric": self.metric, "aligned": self.aligned,
            "samples": self.samples, "verdict": self.verdict,
            "pairs": [{"layers": [p.one, p.other], "distance": p.distance, "shape": p.shape} for p in self.pairs],
            "left": [{"layer": one.name, "why": one.why} for one in self.left],
        }  # fmt: skip
        return json.dumps(plain(data), indent=2, allow_nan=False)

    def print(self, console: Console | None = None, most: int | None = None) -> None:
        """Show the pairs, `most` of them at most; None: all."""
        parts: list[RenderableType] = [Text(self.model, style="bold"), "", self._table(most)]
        if self.left:
            parts += ["", self._left()]
        (console or Console()).print(Group(*parts, "", Text(self.verdict, style="bold")))

    def _table(self, most: int | None) -> Table:
        shown = self.pairs[:most]
        table = new_table("layer", right=[], more=["and"])
        table.add_column("shape", justify="right")
        table.add_column(f"{self.metric} distance", justify="right")
        for pair in shown:
            shape = "x".join(map(str, pair.shape))
            table.add_row(Text(pair.one), Text(pair.other), shape, f"{pair.distance:.4f}")
        if len(self.pairs) > len(shown):
            table.caption = Text(f" and {len(self.pairs) - len(shown)} more (-v shows all)", style="dim")
        return table

    def _left(self) -> Table:
        table = new_table("cannot share because", right=["layers"], more=["which"])
        reasons: dict[str, list[str]] = {}
        for one in self.left:
            reasons.setdefault(one.why, []).append(one.name)
        for why, names in reasons.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            table.add_row(Text(why), str(len(names)), Text(", ".join(names[:3]) + more, style="dim"))
        return table


def rank_layers(
    model: Source,
    *,
    metric: Metric | str = Metric.WASSERSTEIN,
    whole: bool = False,
    align: bool = True,
    effort: Effort | str = Effort.BALANCED,
    calibration: object = None,
    samples: int = 128,
    preprocess: Preprocess | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    providers: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress[Any] = silent,
) -> LayersReport:
    """How alike the layers of a model are, pair by pair; arguments as in `onnxfold.fuse`.

    Samples are only made, or read, for a metric that needs them. Raises RequestError, ModelError, and
    NothingToFoldError where no two layers could share a weight.
    """
    kind, spent = one_of(Metric, metric), one_of(Effort, effort)
    check_seed(seed)
    usable, _ = resolve_providers(providers)
    loaded = load(model, input_shapes)
    found, left = layers(loaded)
    units = whole_blocks(blocks(loaded), found) if whole else alone(found)
    if not units:
        raise NothingToFoldError(nothing(loaded.path or "this model", whole, left))
    evidence = None
    if kind.sampled:
        evidence = gather_evidence(
            loaded, calibration, samples, preprocess, spent, Method.FOLD, Recovery.AUTO, seed, input_shapes, progress,
            usable,
        )  # fmt: skip
    feeds = evidence.fit if evidence is not None and evidence.trusted else None
    free = seats(analysed(loaded)) if align else {}
    ranked = rank(loaded, units, kind, free, feeds, progress)
    described = None if evidence is None else evidence.described
    return LayersReport(named(model), kind.value, align, described, tuple(pairs(ranked)), tuple(ranked), left)


def nothing(what: object, whole: bool, left: Sequence[Left]) -> str:
    """Why there is nothing to fuse."""
    units = "residual blocks" if whole else "layers"
    reasons = "; ".join(dict.fromkeys(one.why for one in left))
    return f"nothing to fuse in {what}: no two {units} have weights of one shape" + (f" ({reasons})" if reasons else "")
