"""Top-1 of every method at the same widths or MACs, with and without data, on real networks; the tables of docs/.

    python benchmarks/recovery.py [--models NAME ...] [--columns TITLE ...] [--store docs/accuracy.json]
    python benchmarks/recovery.py --render docs/accuracy.json     # the tables and the plot of docs/accuracy.md again

Rows "inner": the same share of channels kept in the inner group of every residual block. Rows "MACs": all groups with a
target for the MACs, planned by ours, uniform by the others. Columns: L1, L2, plain fold (k-means), closed form
(Fold-AR, or variance correction where BatchNormalization was fused), onnxsim's L2 pruning (all channels, at the
sparsity whose MACs come nearest), a GRAIL-like channel ridge (k-means clusters, consumers multiplied by a ridge map
fitted on 128 images; arXiv 2602.23795, from the formula), and ours with synthetic inputs and with 128 real ones.
`--store` keeps the figures by network; with `--columns`, those of other columns stay.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from figures import keep, render
from nets import INNER, Net, net, options, parsed
from numpy.typing import NDArray
from planned import planned
from scipy.sparse import csr_matrix

from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import costs
from onnxfold.analysis.groups import Role
from onnxfold.folding.merge import Merge
from onnxfold.model.model import load
from onnxfold.options.budget import Aim, Budget
from onnxfold.planning.merger import Merger
from onnxfold.runtime.segments import SegmentRunner

HALF = ("inner .75", "inner .50", "inner .25", "MACs .90", "MACs .75", "MACs .60", "MACs .50", "MACs .35")
FEW = ("inner .75", "inner .50", "inner .25", "MACs .75", "MACs .50")
LIGHT = ("MACs .85", "MACs .70")
ROWS = {
    "cifar10_resnet20_bn": HALF,
    "cifar10_resnet56_bn": HALF,
    "cifar10_resnet20_fused": FEW,
    "cifar10_resnet56_fused": FEW,
    "cifar10_resnet32pool_bn": LIGHT,
    "cifar10_simpnet300k_bn": LIGHT,
    "cifar10_squeezenet_bn": LIGHT,
    "cifar10_densenet40_12_bn": LIGHT,
    "imagenet_mobilenetv1_0.5_160": LIGHT,
    "imagenet_mobilenetv2_1.0_224": LIGHT,
    "imagenet_squeezenet10_dc_fused": LIGHT,
}
RIVALS: dict[str, dict[str, Any]] = {
    "L1": {"method": "prune-l1", "recovery": "none"},
    "L2": {"method": "prune-l2", "recovery": "none"},
    "fold": {"method": "fold", "recovery": "none"},
    "closed form": {"method": "fold", "recovery": "closed-form"},
}
COLUMNS = (*RIVALS, "onnxsim", "ridge 128", "no data", "128 images")
Cell = tuple[float, float]  # share of the MACs, top-1


def channel_ridge(path: Path, images: NDArray[np.float32], include: str, ratio: float) -> onnx.ModelProto:
    """GRAIL's map: consumers times B = G R' (R G R' + 1e-3 mean(diag) I)^-1, G the uncentered moments of their
    input."""
    model = load(path)
    analysis = analyze(model)
    work = Merger(model, analysis)
    (source,) = [name for name in model.graph.inputs if name not in model.constants]
    nodes = model.graph.nodes
    merges = {}
    for group in analysis.groups:
        if not re.search(include, group.name):
            continue
        merge = work.merge(group.name, round(group.size * (1 - ratio)))
        moments = np.zeros((group.size, group.size))
        runner = SegmentRunner(model.proto, [{source: images}])
        consumers = sorted({i for p in group.parameters if p.role is Role.CONSUMES for i in p.nodes})
        for index in consumers:
            x = runner.advance(index, [nodes[index].inputs[0]])[0][nodes[index].inputs[0]]
            flat = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1).astype(np.float64)
            if len(flat) == group.size:
                moments += flat @ flat.T
        means = merge.for_producers.toarray()
        small = means @ moments @ means.T
        small += np.eye(len(small)) * 1e-3 * np.trace(small) / len(small)
        mapped = np.linalg.solve(small, means @ moments)
        merges[group.name] = Merge(merge.keep, merge.labels, merge.for_producers, csr_matrix(mapped), error=merge.error)
    return work.emit(merges)


def by_onnxsim(path: Path, share: float) -> tuple[onnx.ModelProto, float] | None:
    """onnxsim's L2 pruning, and its share of the MACs: of eight sparsities the one that comes nearest to `share`."""
    try:
        import onnxsim
    except ImportError:
        return None
    whole, best = costs(load(path)).macs({}), None
    low, high = 0.0, 0.95
    for _ in range(8):
        middle = (low + high) / 2
        try:
            pruned = onnxsim.apply_structured_pruning(onnx.load(path), sparsity=middle)
            found = costs(load(pruned)).macs({}) / whole
        except Exception:  # it refuses, or what it gives is no model
            return None
        if best is None or abs(found - share) < abs(best[1] - share):
            best = pruned, found
        low, high = (middle, high) if found > share else (low, middle)
    return best if best is not None and best[1] < 1 else None


def column(real: Net, title: str, rows: Sequence[str], effort: str) -> dict[str, Cell | None]:
    """One column of the table, by row; None where the method does not apply."""
    shares = {row: float(row.split()[1]) for row in rows}
    inner = [row for row in rows if row.startswith("inner")]
    found: dict[str, Cell | None] = dict.fromkeys(rows)
    if title == "ridge 128":
        for row in inner:
            found[row] = (0.0, real.top1(channel_ridge(real.path, real.unlabeled, INNER, 1 - shares[row])))
    elif title == "onnxsim":
        for row in (row for row in rows if row not in inner):
            pruned = by_onnxsim(real.path, shares[row])
            found[row] = pruned and (pruned[1], real.top1(pruned[0]))
    else:
        for some, aim, include in ((inner, Aim.RATIO, [INNER]), ([r for r in rows if r not in inner], Aim.MACS, [])):
            budgets = {r: Budget(aim, 1 - shares[r] if aim is Aim.RATIO else shares[r]) for r in some}
            found.update(folded(real, title, budgets, include, effort) if budgets else {})
    return found


def folded(real: Net, title: str, budgets: Mapping[str, Budget], include: list[str], effort: str) -> dict[str, Cell]:
    """Several budgets decided as `onnxfold.fold` decides one, on one sensitivity analysis."""
    calibration = real.unlabeled if title == "128 images" else None
    how = {"effort": effort, **RIVALS.get(title, {})}
    cells = {}
    with planned(real.path, include=include, round_to=1, calibration=calibration, **how) as work:
        for row, budget in budgets.items():
            done = work.decide(budget)
            cells[row] = work.macs(done), real.top1(done.proto)
    return cells


def merged(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Columns that were not measured again stay."""
    before = {row["title"]: row["cells"] for row in old["rows"]} if old else {}
    return {**new, "rows": [{**row, "cells": {**before.get(row["title"], {}), **row["cells"]}} for row in new["rows"]]}


def main() -> None:
    parser = options(__doc__ or "", store=True)
    parser.add_argument("--models", nargs="+", default=list(ROWS))
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=COLUMNS, help="only these")
    parser.add_argument("--effort", default="balanced")
    asked = parsed(parser)
    if asked.render:
        return render(asked.render)
    print(f"{'':24}{'':10}{'MACs':>6}" + "".join(f"{name:>13}" for name in asked.columns))
    for name in asked.models:
        real = net(asked.data, name, asked.images)
        dense = real.top1(onnx.load(real.path))
        print(f"{name.split('_', 1)[1]:24}{'dense':10}{dense:>19.2f}", flush=True)
        columns, seconds = {}, {}
        for title in asked.columns:
            begin = time.perf_counter()
            columns[title] = column(real, title, ROWS[name], asked.effort)
            seconds[title] = time.perf_counter() - begin
        for row in ROWS[name]:
            cells = [columns[title][row] for title in asked.columns]
            left = next((cell[0] for cell in reversed(cells) if cell), float("nan"))
            text = "".join(f"{'-' if cell is None else format(cell[1], '.2f'):>13}" for cell in cells)
            print(f"{'':24}{row:10}{left:>6.2f}{text}", flush=True)
        print(f"{'':24}{'seconds':16}" + "".join(f"{seconds[title]:>13.0f}" for title in asked.columns), flush=True)
        rows = [{"title": row, "cells": {title: columns[title][row] for title in columns}} for row in ROWS[name]]
        keep(asked.store, name, partial(merged, new={"dense": dense, "images": len(real.images), "rows": rows}))
    if asked.store:
        render(asked.store)


if __name__ == "__main__":
    main()
