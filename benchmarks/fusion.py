"""Layer fusion, block dropping and file sizes on real networks; the tables of docs/fusion.md.

    python benchmarks/fusion.py [--parts share refine drop size] [--models NAME ...] --store docs/fusion.json
    python benchmarks/fusion.py --render docs/fusion.json     # the tables of docs/fusion.md again

share: top-1 with 25 and 50 % of the layers without weights of their own, by distance and kind of fusion: unaligned and
aligned without repair; least squares on 128 training images, no labels (mean by every distance, the rest by one).
refine: the same, least squares and then gradients, on 512 training images and on synthetic ones (--steps 100: hours).
drop: a quarter of the residual blocks of a ResNet-56 dropped, and channels folded to the same arithmetic and latency.
size: bytes of the file, and memory that a process takes to load it, with and without shared weights.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from figures import filled, keep
from nets import Net, net, options, parsed
from onnx import helper, numpy_helper

from onnxfold import FoldResult, fold
from onnxfold.analysis.analyze import analyze
from onnxfold.analysis.costs import count_parameters
from onnxfold.analysis.result import Analysis
from onnxfold.api import fuse
from onnxfold.calibration.collect import Making, collect_samples
from onnxfold.evaluation.latency import latency_share, timing_feeds
from onnxfold.model.model import load
from onnxfold.options.choices import DEFAULT_DISTANCE, Distance, Effort, Fusion, Method
from onnxfold.options.parts import CalibrationOptions, PlanningOptions, SelectionOptions
from onnxfold.passes.distillation import train
from onnxfold.passes.distillation.block_targets import Counterparts
from onnxfold.passes.distillation.channel_maps import maps_of
from onnxfold.passes.distillation.schedule import extent, sample_shapes
from onnxfold.passes.weight_sharing.alignment import alignable
from onnxfold.passes.weight_sharing.distances import Partition, alone, layer_sets, rank
from onnxfold.passes.weight_sharing.fuse import FuseSettings, fuse_layers, repaired
from onnxfold.passes.weight_sharing.layers import Layer, layers
from onnxfold.runtime.session import Feeds, Session

PARTS = ("share", "refine", "drop", "size")
NETS = ("cifar10_resnet20_bn", "cifar10_resnet56_bn")
SHARES = (0.25, 0.5)
REFITTED = {NETS[0]: tuple(Distance), NETS[1]: (DEFAULT_DISTANCE, Distance.ACTIVATIONS, Distance.REFIT)}
BATCH, REAL = 32, 512
INPUTS = (f"{REAL} images", "synthetic")
PAPER = (  # O'Neill et al., arXiv 2007.14917: CIFAR-10, ResNet, Wasserstein, mean; 25 and 50 % fused
    ("the paper's ResNet (dense 93.6), without retraining", (91.3, 91.8)),
    ("the same, retrained after every fusion", (94.8, 94.6)),
)
LOADED = """
import sys, onnxruntime as ort
def now(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1])
how = ort.SessionOptions()
if sys.argv[2] == "plain": how.add_session_config_entry("session.disable_prepacking", "1")
tiny = ort.InferenceSession(sys.argv[3], how, providers=["CPUExecutionProvider"])
before = now()
session = ort.InferenceSession(sys.argv[1], how, providers=["CPUExecutionProvider"])
print(now() - before)
"""


class Fuser:
    """One network, and what its layers look like by every distance."""

    def __init__(self, real: Net) -> None:
        self.real, self.model = real, load(real.path)
        self.analysis: Analysis = analyze(self.model)
        self.found, _ = layers(self.model)
        (source,) = [name for name in self.model.graph.inputs if name not in self.model.constants]
        images = real.unlabeled
        self.feeds: Sequence[Feeds] = [{source: images[i : i + BATCH]} for i in range(0, len(images), BATCH)]
        self._known: dict[tuple[Any, ...], float] = {}

    def sets(self, distance: Distance) -> list[list[list[Layer]]]:
        """The layers that share weights, for each of SHARES."""
        at = Partition(rank(self.model, alone(self.found), distance, alignable(self.analysis), self.feeds))
        out = []
        for share in SHARES:
            while at.layers < max(1, round(share * len(self.found))):
                pair = at.next()
                assert pair is not None
                at = at.joined(*pair)
            out.append(layer_sets(at.sets))
        return out

    def left(self, sets: Sequence[Sequence[Layer]]) -> float:
        """The share of the parameters that remains."""
        saved = sum((len(one) - 1) * one[0].size for one in sets)
        return 1 - saved / count_parameters(self.model.proto)

    def top1(self, sets: Sequence[Sequence[Layer]], how: Fusion, align: bool, refit: bool) -> float:
        """Of the network with these sets; the same question is answered once."""
        key = (tuple(tuple(layer.key for layer in one) for one in sets), how, align, refit)
        if key not in self._known:
            feeds = self.feeds if refit else None
            made = fuse_layers(self.model, self.analysis, sets, FuseSettings(how, align), feeds=feeds)
            self._known[key] = self.real.top1((repaired(made, self.feeds) if refit else made).proto)
        return self._known[key]


def share(real: Net, distances: Sequence[Distance]) -> Iterator[dict[str, Any]]:
    """Show 1: rows by distance and kind of fusion, as far as they are."""
    work, rows = Fuser(real), list[dict[str, Any]]()
    dense = real.top1(work.model.proto)
    print(f"{real.name}: dense {dense:.2f}, {len(work.found)} layers", flush=True)
    for distance in distances:
        sets = work.sets(distance)
        for how in Fusion:
            refit = distance in REFITTED[real.name] and (how is Fusion.MEAN or distance is DEFAULT_DISTANCE)
            ways = ((False, False), (True, False), (True, True))
            cells = [[work.top1(s, how, *way) if refit or not way[1] else None for way in ways] for s in sets]
            left = [work.left(s) for s in sets]
            rows.append({"distance": distance.value, "fusion": how.value, "left": left, "cells": cells})
            print(f"{distance.value:12} {how.value:7} " + "  ".join(str(cell) for cell in cells), left, flush=True)
            yield {"dense": dense, "rows": rows}


def refine(
    real: Net, distances: Sequence[Distance], kinds: Sequence[Fusion], steps: int | None, given: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Show 1, trained on what the original says: by distance, kind and share, with images and with none."""
    work, rows = Fuser(real), list[dict[str, Any]]()
    dense = real.top1(work.model.proto)
    known: dict[tuple[Any, ...], dict[str, float]] = {}
    for inputs in given:
        images = real.unlabeled if inputs == INPUTS[0] else None
        samples = collect_samples(
            work.model, CalibrationOptions(data=images, samples=REAL),
            PlanningOptions(selection=SelectionOptions(method=Method.FOLD)), Making(), training=True,
        )  # fmt: skip
        assert samples is not None
        work.feeds = samples.fit
        count, batch = extent(work.model, Effort.BALANCED, sample_shapes(work.model, samples), steps)
        for distance in distances:
            for share, sets in zip(SHARES, work.sets(distance), strict=True):
                for how in kinds:
                    key = (*(tuple(layer.key for layer in one) for one in sets), how, inputs)
                    if key not in known:
                        made = fuse_layers(work.model, work.analysis, sets, FuseSettings(how), feeds=work.feeds)
                        fitted = repaired(made, work.feeds).proto
                        pairs = Counterparts(maps_of(work.analysis, made.moves))
                        better = train.refine(work.model, fitted, samples, train.TrainSettings(count, batch), pairs)
                        trained = train.refined(fitted, better.arrays, None) if better.improved else fitted
                        known[key] = {"least squares": real.top1(fitted), "refined": real.top1(trained)}
                    rows.append({
                        "distance": distance.value, "fusion": how.value, "share": share, "inputs": inputs,
                        "steps": count, "left": work.left(sets), **known[key],
                    })  # fmt: skip
                    print(real.name, rows[-1], flush=True)
                    yield {"dense": dense, "rows": rows}


def drop(real: Net) -> Iterator[dict[str, Any]]:
    """Show 3: a quarter of the blocks dropped, and channels folded to the same arithmetic and further; latencies by one
    thread, and by as many as there are cores, as `--target-latency` measures them."""
    original, rows = onnx.load(real.path), list[dict[str, Any]]()
    data: dict[str, Any] = {"calibration": real.unlabeled}
    blocks: dict[str, Any] = {"how": None, "drop_blocks": "25%"}
    jobs: list[tuple[str, Callable[..., FoldResult], dict[str, Any]]] = [
        ("25 % of the blocks dropped", fuse, {**blocks, **data, "recovery": "none"}),
        ("the same, least squares", fuse, {**blocks, **data}),
        ("channels folded to the same arithmetic", fold, {"target_macs": None, **data}),
        ("channels folded to 60 % of it", fold, {"target_macs": 0.6, **data}),
        ("channels folded to 50 % of it", fold, {"target_macs": 0.5, **data}),
        ("channels folded to the latency of dropping", fold, {"target_latency": None, **data}),
    ]
    for title, job, how in jobs:
        if how.get("target_macs", 0) is None:
            how["target_macs"] = rows[-1]["macs"]
        if how.get("target_latency", 0) is None:
            how["target_latency"] = rows[1]["latency"][1]
        done = job(real.path, latency=False, **how)
        assert done.report.after is not None
        latency = [faster(original, done.model, real, threads) for threads in (1, 0)]
        macs = done.report.after.macs / done.report.before.macs
        rows.append({"title": title, "macs": macs, "latency": latency, "top1": real.top1(done.model)})
        print(rows[-1], flush=True)
        yield {"rows": rows}


def faster(original: onnx.ModelProto, proto: onnx.ModelProto, real: Net, threads: int) -> float:
    """Latency as a share of the original's, batch 1."""
    old, new = (Session(one.SerializeToString(), threads=threads) for one in (original, proto))
    feeds = {old.inputs[0].name: real.images[:1]}
    return latency_share(old, new, timing_feeds(old, new, feeds))


def size(real: Net) -> Iterator[dict[str, Any]]:
    """Show 5: files and memory with shared weights, of a network and of 12 layers of 1024 x 1024."""
    rows = list[dict[str, Any]]()
    plainly: dict[str, Any] = {"distance": Distance.EUCLIDEAN, "align": False, "effort": "fast", "latency": False}
    with tempfile.TemporaryDirectory() as folder:
        deep, first = Path(folder) / "deep.onnx", Path(folder) / "first.onnx"
        onnx.save(products(), deep)
        onnx.save(products(1, 8), first)
        for title, path in (("12 products of 1024 x 1024", deep), (real.name, real.path)):
            for percent in (0, 20, 40):
                for external in (False, True):
                    target = Path(folder) / f"{percent}{external}" / "model.onnx"
                    target.parent.mkdir(exist_ok=True)
                    if percent:
                        fuse(path, target, share=percent / 100, external_data=external, **plainly)
                    else:
                        onnx.save(onnx.load(path), target, save_as_external_data=external, size_threshold=1024)
                    written = sum(file.stat().st_size for file in target.parent.iterdir())
                    memory = {how: loaded(target, how, first) for how in ("packed", "plain")}
                    for file in target.parent.iterdir():
                        file.unlink()
                    rows.append({"title": title, "share": percent, "external": external, "bytes": written, **memory})
                    print(rows[-1], flush=True)
                    yield {"rows": rows}


def loaded(path: Path, how: str, first: Path) -> float:
    """MB that a process grows by when onnxruntime loads a model after a `first` tiny one: the median of five."""
    runs = [
        subprocess.run([sys.executable, "-c", LOADED, path, how, first], capture_output=True, text=True, check=True)
        for _ in range(5)
    ]
    return float(np.median([int(run.stdout) for run in runs])) / 1000


def products(count: int = 12, width: int = 1024) -> onnx.ModelProto:
    """A chain of matrix products with random weights."""
    rng = np.random.default_rng(0)
    nodes, weights, at = [], [], "x"
    for i in range(count):
        weights.append(numpy_helper.from_array(rng.standard_normal((width, width), np.float32) / 32, f"w{i}"))
        nodes += [helper.make_node("MatMul", [at, f"w{i}"], [f"m{i}"]), helper.make_node("Relu", [f"m{i}"], [f"r{i}"])]
        at = f"r{i}"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "deep", [value("x", 1, ["N", width])], [value(at, 1, ["N", width])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def merged(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """Rows by distance and fusion that were not measured again stay."""
    if old is None or "dense" not in new:
        return new
    again = {_name(row): row for row in new["rows"]}
    names = [_name(row) for row in old["rows"]]
    rows = [again.get(name, row) for name, row in zip(names, old["rows"], strict=True)]
    return {**new, "rows": rows + [row for name, row in again.items() if name not in names]}


def _name(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(key) for key in ("distance", "fusion", "share", "inputs", "steps"))


def render(stored: Path) -> None:
    """Write the tables into the page beside `stored`, between its marks."""
    found = json.loads(stored.read_text())
    document = stored.with_suffix(".md")
    text = document.read_text()
    for name in NETS:
        if name in found:
            text = filled(text, f"share {name}", _shares(found[name]))
        if f"refine {name}" in found:
            text = filled(text, f"refine {name}", _refined(found[f"refine {name}"]))
    if "drop" in found:
        lines = ["| | MACs | latency, one thread | latency, two threads | top-1 |", "|---|---|---|---|---|"]
        lines += [
            f"| {r['title']} | {r['macs']:.2f} | {r['latency'][0]:.2f} | {r['latency'][1]:.2f} | {r['top1']:.2f} |"
            for r in found["drop"]["rows"]
        ]
        text = filled(text, "drop", "\n".join(lines))
    if "size" in found:
        lines = [
            "| | layers fused | stored | file, MB | loaded, MB | loaded without prepacking, MB |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {r['title']} | {r['share']} % | {'external' if r['external'] else 'inline'} | {r['bytes'] / 1e6:.2f} "
            f"| {r['packed']:.1f} | {r['plain']:.1f} |"
            for r in found["size"]["rows"]
        ]
        text = filled(text, "size", "\n".join(lines))
    document.write_text(text)


def _shares(found: dict[str, Any]) -> str:
    titles = ("parameters", "as they are", "aligned", "least squares")
    heads = [f"{share:.0%}: {title}" for share in SHARES for title in titles]
    lines = [f"| dense {found['dense']:.2f} | | " + " | ".join(heads) + " |", "|---|---|" + "---|" * len(heads)]
    order = [(distance.value, how.value) for distance, how in product(Distance, Fusion)]
    for row in sorted(found["rows"], key=lambda row: order.index((row["distance"], row["fusion"]))):
        shown = [[left, *pair] for left, pair in zip(row["left"], row["cells"], strict=True)]
        cells = ["" if cell is None else f"{cell:.2f}" for pair in shown for cell in pair]
        lines.append(f"| {row['distance']} | {row['fusion']} | " + " | ".join(cells) + " |")
    for title, figures in PAPER:
        lines.append(f"| {title} | mean | " + " | ".join(f" | | | {figure}" for figure in figures) + " |")
    return "\n".join(lines)


def _refined(found: dict[str, Any]) -> str:
    """A line for each distance, kind and number of steps; what least squares left and what refinement made of it."""
    heads = [f"{share:.0%}: {title}" for share in SHARES for title in ("parameters", *INPUTS)]
    lines = [
        f"| dense {found['dense']:.2f} | | steps | " + " | ".join(heads) + " |",
        "|---|---|---|" + "---|" * len(heads),
    ]
    cells = {_name(row): row for row in found["rows"]}
    counts = sorted({row["steps"] for row in found["rows"]})
    for steps, distance, how in product(counts, (m.value for m in Distance), (f.value for f in Fusion)):
        shown = []
        for share in SHARES:
            pair = [cells.get((distance, how, share, inputs, steps)) for inputs in INPUTS]
            left = dict.fromkeys(f"{one['left']:.2f}" for one in pair if one)
            shown.append(" / ".join(left))
            shown += [f"{one['least squares']:.2f} → {one['refined']:.2f}" if one else "" for one in pair]
        if any(shown):
            lines.append(f"| {distance} | {how} | {steps} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = options(__doc__ or "", store=True)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--models", nargs="+", default=list(NETS))
    parser.add_argument(
        "--distances", nargs="+", default=[distance.value for distance in Distance], help="of these only"
    )
    parser.add_argument("--kinds", nargs="+", default=[how.value for how in Fusion], help="of fusion, for refine only")
    parser.add_argument("--inputs", nargs="+", choices=INPUTS, default=INPUTS, help="to refine on")
    parser.add_argument("--steps", type=int, help="of refinement (default: by effort)")
    asked = parsed(parser)
    if asked.render:
        return render(asked.render)
    distances = [Distance(name) for name in asked.distances]
    ask = partial(share, distances=distances)
    jobs: list[tuple[str, Callable[[Net], Iterator[dict[str, Any]]], str]] = []
    jobs += [(name, ask, name) for name in asked.models] if "share" in asked.parts else []
    train = partial(
        refine, distances=distances, kinds=[Fusion(name) for name in asked.kinds], steps=asked.steps, given=asked.inputs
    )
    jobs += [(f"refine {name}", train, name) for name in asked.models] if "refine" in asked.parts else []
    jobs += [("drop", drop, "cifar10_resnet56_bn")] if "drop" in asked.parts else []
    jobs += [("size", size, "cifar10_resnet18w32_bn")] if "size" in asked.parts else []
    for key, job, name in jobs:
        for found in job(net(asked.data, name, asked.images, REAL if job is train else 128)):
            keep(asked.store, key, partial(merged, new=found))
    if asked.store:
        render(asked.store)


if __name__ == "__main__":
    main()
