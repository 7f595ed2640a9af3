"""Figures that benchmarks keep, and the tables and the plot of docs/accuracy.md from those of recovery.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLOTTED = ("cifar10_resnet20_bn", "cifar10_resnet56_bn")
OURS = ("no data", "128 images")


def render(stored: Path) -> None:
    """Write the plot beside `stored`, and the tables into accuracy.md there, between its marks."""
    found = json.loads(stored.read_text())
    document = stored.with_suffix(".md")
    text = document.read_text()
    for names in re.findall(r"<!-- table: ([\w. ]+) -->", text):
        text = filled(text, names, _table({name: found[name] for name in names.split() if name in found}))
    document.write_text(text)
    _plot({name: found[name] for name in PLOTTED if name in found}, stored.with_suffix(".svg"))


def keep(store: Path | None, name: str, merged: Callable[[Any], Any]) -> None:
    """Put what `merged` makes of the figures kept so far (None: none) into the JSON file `store`, under `name`."""
    if store is not None:
        kept = json.loads(store.read_text()) if store.exists() else {}
        kept[name] = merged(kept.get(name))
        store.write_text(json.dumps(kept, indent=1) + "\n")


def filled(text: str, name: str, table: str) -> str:
    """`text` with `table` between the mark ``<!-- table: name -->`` and the next end."""
    mark = f"<!-- table: {name} -->"
    begin = text.index(mark) + len(mark)
    return f"{text[:begin]}\n\n{table}\n\n{text[text.index('<!-- end -->', begin) :]}"


def _table(found: dict[str, Any]) -> str:
    columns = list(next(iter(found.values()))["rows"][0]["cells"]) if found else []
    lines = ["| | | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for name, net in found.items():
        lines.append(f"| {name.split('_', 1)[1]} | {net['dense']:.2f} |" + " |" * len(columns))
        for row in net["rows"]:
            best = max(cell[1] for cell in row["cells"].values() if cell)
            cells = [_cell(cell, best) for cell in row["cells"].values()]
            lines.append(f"| | {row['title']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(cell: list[float] | None, best: float) -> str:
    if cell is None:
        return "-"
    return f"**{cell[1]:.2f}**" if cell[1] == best else f"{cell[1]:.2f}"


def _plot(found: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "onnxfold"
    from matplotlib import pyplot

    figure, all_axes = pyplot.subplots(1, max(1, len(found)), figsize=(5.2 * len(found), 4), sharey=True, squeeze=False)
    for axes, (name, net) in zip(all_axes[0], found.items(), strict=True):
        rows = [row for row in net["rows"] if row["title"].startswith("MACs")]
        for column in rows[0]["cells"]:
            points = [(1.0, net["dense"]), *(row["cells"][column] for row in rows if row["cells"][column])]
            if len(points) > 1:
                ours = column in OURS
                label, width, mark = (f"onnxfold, {column}", 2.2, "o-") if ours else (column, 1.1, ".--")
                axes.plot(*zip(*points, strict=True), mark, lw=width, label=label)
        axes.set(title=name.split("_", 1)[1], xlabel="MACs left", xlim=(1.02, 0.33), ylim=(0, 100))
        axes.grid(alpha=0.3)
    all_axes[0][0].set_ylabel("top-1, %")
    all_axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
