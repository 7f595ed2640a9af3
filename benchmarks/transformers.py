"""Transformers with trained weights: accuracy of ViTs and perplexity of a language model; the tables of
docs/transformers.md.

    python benchmarks/transformers.py [--nets NAME ...] [--columns TITLE ...] --store docs/transformers.json
    python benchmarks/transformers.py --render docs/transformers.json     # the tables of docs/transformers.md again

ViTs on 2,000 CIFAR-10 test images: hidden units of the MLPs, attention heads, and both, a quarter and a half of each
layer. The language model (LLaMA-style, grouped-query attention) on 48 stories: tenths of both, and the sizes at which
onnxsim's pruning was measured. `fused` is the same model said in com.microsoft's fused operators.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from figures import filled, keep
from nets import net, options, parsed
from restated import restated

from onnxfold import fold
from onnxfold.analysis.costs import count_parameters

VITS = {  # patterns of the groups of hidden units, and of heads
    "cifar10_vit_d128_l6_fused": ("linear1", "self_attn"),
    "vit_2_6_cifar10": ("MatMul_(65|115)", "MatMul_(32|82)"),
    "vit_ibp_3_3_8_cifar10": (r"fn\.1\.0", "query"),
}
STORIES = "stories260K_dynamo"
SHARES = (0.25, 0.5)
TENTHS = (0.1, 0.2, 0.3)
LEFT = (0.97, 0.93)
PLAIN: dict[str, dict[str, Any]] = {
    "L1": {"method": "prune-l1", "recovery": "none"},
    "L2": {"method": "prune-l2", "recovery": "none"},
    "fold": {"method": "fold", "recovery": "none"},
}
COLUMNS = (*PLAIN, "no data", "no data, refined", "data", "data, refined")
Score = Callable[[onnx.ModelProto], float]
Row = tuple[str, dict[str, Any]]


def how(column: str, data: object, steps: int | None) -> dict[str, Any]:
    """The options of a column."""
    if column in PLAIN:
        return {**PLAIN[column], "effort": "fast"}
    found: dict[str, Any] = {"calibration": data} if column.startswith("data") else {}
    return {**found, "refine": True, "steps": steps} if column.endswith("refined") else found


def vits(data: Path, name: str, images: int) -> tuple[onnx.ModelProto, Score, object, list[Row]]:
    """A ViT, its accuracy, 128 training images and what is folded of it."""
    real = net(data, name, images)
    hidden, heads = VITS[name]
    parts = {"hidden units": [hidden], "heads": [heads], "both": [hidden, heads]}
    rows = [(f"{part} -{r:.0%}", {"ratio": r, "include": at}) for part, at in parts.items() for r in SHARES]
    return onnx.load(real.path), real.top1, real.unlabeled, rows


def stories(data: Path, name: str) -> tuple[onnx.ModelProto, Score, object, list[Row]]:
    """The language model, its perplexity, its calibration texts and what is folded of it."""
    model = onnx.load(data / "models" / f"{STORIES}.onnx")
    words = np.load(data / "language" / "stories_test.npz")["input_ids"].astype(np.int64)
    if name == "fused":
        model = restated(model)

    def perplexity(proto: onnx.ModelProto) -> float:
        session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        total = 0.0
        for row in words:
            scores: Any = session.run(None, {"input_ids": row[None, :-1]})[0]
            scores = scores[0].astype(np.float64)
            scores -= scores.max(axis=1, keepdims=True)
            logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
            total -= float(logs[np.arange(len(logs)), row[1:]].sum())
        return float(np.exp(total / words[:, 1:].size))

    rows: list[Row] = [(f"-{r:.0%} of both", {"ratio": r}) for r in TENTHS]
    rows += [(f"{left:.0%} of the parameters left", {"target_params": left}) for left in LEFT]
    return model, perplexity, data / "language" / "stories_calib.npz", rows


def measured(
    data: Path, name: str, images: int, columns: list[str], only: str, steps: int | None
) -> Iterator[dict[str, Any]]:
    """The table of a net, cell by cell as far as it is; of rows whose title holds `only`."""
    model, score, own, rows = vits(data, name, images) if name in VITS else stories(data, name)
    rows = [row for row in rows if only in row[0]]
    found: dict[str, Any] = {"dense": score(model), "rows": {title: {} for title, _ in rows}}
    print(f"{name}: {found['dense']:.2f}", flush=True)
    for column in columns:
        for title, what in rows:
            done = fold(model, round_to=1, latency=False, **what, **how(column, own, steps))
            left = count_parameters(done.model) / count_parameters(model)
            found["rows"][title][column] = [left, score(done.model)]
            print(f"{name}, {title}, {column}: {found['rows'][title][column]}", flush=True)
            yield found


def merged(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Cells that were not measured again stay."""
    if old is None:
        return new
    again = {title: {**old["rows"].get(title, {}), **cells} for title, cells in new["rows"].items()}
    return {**new, "rows": {**old["rows"], **again}}


def render(stored: Path) -> None:
    """Write the tables into the page beside `stored`, between its marks."""
    document = stored.with_suffix(".md")
    text = document.read_text()
    for name, found in json.loads(stored.read_text()).items():
        columns = [c for c in COLUMNS if any(c in cells for cells in found["rows"].values())]
        lines = [
            f"| {found['dense']:.2f} | parameters | " + " | ".join(columns) + " |",
            "|---|---|" + "---|" * len(columns),
        ]
        for title, cells in found["rows"].items():
            left = next((cell[0] for cell in cells.values()), 1.0)
            shown = (f"{cells[c][1]:.2f}" if c in cells else "" for c in columns)
            lines.append(f"| {title} | {left:.1%} | " + " | ".join(shown) + " |")
        text = filled(text, name, "\n".join(lines))
    document.write_text(text)


def main() -> None:
    parser = options(__doc__ or "", store=True)
    nets = [*VITS, "stories", "fused"]
    parser.add_argument("--nets", nargs="+", default=nets, choices=nets)
    parser.add_argument("--columns", nargs="+", default=list(COLUMNS), choices=COLUMNS)
    parser.add_argument("--rows", default="", help="only rows whose title holds this")
    parser.add_argument("--steps", type=int, help="of refinement (default: by effort)")
    asked = parsed(parser)
    if asked.render:
        return render(asked.render)
    for name in asked.nets:
        for found in measured(asked.data, name, asked.images, asked.columns, asked.rows, asked.steps):
            keep(asked.store, name, partial(merged, new=found))
    if asked.store:
        render(asked.store)


if __name__ == "__main__":
    main()
