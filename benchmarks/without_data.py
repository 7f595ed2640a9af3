"""What a default run without data leaves of real networks, what it costs, and what it says beforehand.

    python benchmarks/without_data.py [--rows ROW ...] [--seeds 3] [--store docs/without-data.json]
    python benchmarks/without_data.py --rows --store docs/without-data.json --write  # the table of what the file holds

Every row is one command, run as a user types it, with an empty cache: its true accuracy on inputs that nothing has
seen, the error that it claims beside the true one, the processor seconds and memory of the whole process, and the
time that it expects before it begins beside what it took. `--store` keeps the figures; with it, runs that are there
are not made again. `--seeds` is for the rows that decide (three), all others run once. `--write` puts the table into
docs/without-data.md.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from figures import filled, keep
from nets import options, parsed
from tasks import LANGUAGE, Task, task
from trust import real

from onnxfold.evaluation.candidates import Evaluator
from onnxfold.model.model import load

PAGE = Path(__file__).resolve().parents[1] / "docs" / "without-data.md"
LAUNCHER = """
import json, resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
cost = {"cpu_seconds": used.ru_utime + used.ru_stime, "megabytes": used.ru_maxrss / 1000}
with open(sys.argv[1], "w") as file:
    json.dump(cost, file)
sys.exit(code)
"""  # a process begins with the memory of who starts it, so that must be a small one


@dataclass(frozen=True)
class Row:
    """A command: the network, its options, whether 128 inputs of the user's calibrate it, whether it runs several
    times."""

    network: str
    options: tuple[str, ...]
    data: bool = False
    decides: bool = False

    @property
    def title(self) -> str:
        return " ".join([self.network, *self.options, *(["data"] if self.data else [])])


def _macs(network: str, share: str, *more: str, data: bool = False, decides: bool = False) -> Row:
    return Row(network, ("--target-macs", share, *more), data, decides)


SHARED = ("--fuse", "mean", "--share", "25")
HALVED = ("--ratio", "0.5", "--include", "linear1", "--include", "self_attn")
ROWS = (
    _macs("effnet_lite0", "0.8", decides=True),
    _macs("effnet_lite0", "0.8", data=True),
    _macs("effnet_lite0", "0.8", "--refine", data=True),
    _macs("imagenet_mobilenetv2_1.0_224", "0.85", decides=True),
    _macs("imagenet_mobilenetv2_1.0_224", "0.7"),
    _macs("imagenet_mobilenetv1_0.5_160", "0.85"),
    _macs("imagenet_mobilenetv1_0.5_160", "0.7"),
    _macs("imagenet_squeezenet10_dc_fused", "0.85"),
    _macs("imagenet_squeezenet10_dc_fused", "0.7"),
    _macs("minilm_l6", "0.8"),
    _macs("minilm_l6", "0.8", data=True),
    _macs("minilm_l6", "0.8", "--refine", data=True),
    _macs("ppocr4_rec", "0.8"),
    _macs("ppocr4_rec", "0.8", data=True),
    Row("cifar10_resnet20_bn", SHARED),
    Row("cifar10_resnet56_bn", SHARED),
    _macs("cifar10_resnet20_fused", "0.5", "--round-to", "1"),
    _macs("cifar10_resnet56_fused", "0.5", "--round-to", "1"),
    _macs("cifar10_densenet40_12_bn", "0.7", "--round-to", "1"),
    Row("cifar10_vit_d128_l6_fused", HALVED),
    *(
        Row(network, ("--target-params", share, *more))
        for network in ("minilm_l6", LANGUAGE) for share in ("0.8", "0.7") for more in ((), ("--fold-residual",))
    ),
)  # fmt: skip

NETWORKS = dict.fromkeys(row.network for row in ROWS)


def measured(data: Path, row: Row, seed: int, work: Task) -> dict[str, Any]:
    """One run of `row`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.onnx")
        said, cost = run(command(row, seed, work, out), Path(folder))
        report, model = json.loads(said), load(work.path)
        parts = report["check"]["quality"]["outputs"]
        feeds = real(data, row.network, model)
        return {
            "accuracy": work.accuracy(str(out)), "claim": max(part["error"] or 0 for part in parts),
            "true": Evaluator(model, lambda _: feeds).error(load(out).proto),
            "macs": report["after"]["macs"] / max(1, report["before"]["macs"]),
            "parameters": report["after"]["parameters"] / report["before"]["parameters"],
            "expected": report["seconds"].get("estimated"), **cost,
        }  # fmt: skip


def measured_again(row: Row, seed: int, work: Task, kept: dict[str, Any]) -> dict[str, Any]:
    """The figures `kept` of a run, with the memory that it takes today."""
    with tempfile.TemporaryDirectory() as folder:
        cost = run(command(row, seed, work, Path(folder, "out.onnx")), Path(folder))[1]
    return {**kept, "megabytes": cost["megabytes"]}


def command(row: Row, seed: int, work: Task, out: Path) -> list[str]:
    """What Python is called with; inputs of the user are written beside `out`."""
    made = ["-m", "onnxfold", str(work.path), str(out), *row.options, "--seed", str(seed), "--json"]
    if not row.data:
        return made
    calibration = out.with_name("inputs.npz")
    np.savez(calibration, **work.calibration)
    return [*made, "--calibration", str(calibration)]


def run(command: list[str], folder: Path) -> tuple[str, dict[str, float]]:
    """What Python prints for `command`, and its seconds, processor seconds and megabytes."""
    begin, costs = time.perf_counter(), folder / "costs.json"
    with (folder / "said").open("w") as said, (folder / "progress").open("w") as progress:
        done = subprocess.run(
            [sys.executable, "-S", "-c", LAUNCHER, str(costs), sys.executable, *command], stdout=said, stderr=progress,
            env={**os.environ, "ONNXFOLD_CACHE_SIZE": "0"}, check=False,
        )  # fmt: skip
    if done.returncode:
        shown = (folder / "progress").read_text()
        sys.exit(f"{' '.join(command)}: exit {done.returncode}: {shown[-500:]}")
    cost = {"seconds": time.perf_counter() - begin, **json.loads(costs.read_text())}
    return (folder / "said").read_text(), cost


def table(found: dict[str, Any]) -> str:
    """Every row: the median of its runs, and the accuracy of each."""
    lines = [
        "| | accuracy (before) | claim | true error | MACs | parameters | CPU s | s | expected | MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in (row for row in ROWS if row.title in found):
        one = found[row.title]
        runs = [one["runs"][seed] for seed in sorted(one["runs"])]
        middle = {key: statistics.median(run[key] or 0 for run in runs) for key in runs[0]}
        accuracies = ", ".join(f"{run['accuracy']:.1f}" for run in runs)
        expected = f"{middle['expected']:.0f}" if middle["expected"] else ""
        lines.append(
            f"| {row.title} | {accuracies} ({one['before']:.1f}) | "
            f"{100 * middle['claim']:.1f} % | {100 * middle['true']:.1f} % | "
            f"{middle['macs']:.2f} | {middle['parameters']:.2f} | "
            f"{middle['cpu_seconds']:.0f} | {middle['seconds']:.0f} | {expected} | {middle['megabytes']:.0f} |"
        )
    return "\n".join(lines)


def _with(before: float, seed: int, run: dict[str, Any], kept: Any) -> Any:
    return {"before": before, "runs": {**(kept or {"runs": {}})["runs"], str(seed): run}}


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument(
        "--rows", nargs="*", default=[row.title for row in ROWS], help="titles, as the table has them, or networks"
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of the rows that decide")
    parser.add_argument("--store", type=Path, help="JSON file that keeps the figures")
    parser.add_argument("--memory", action="store_true", help="measure only the memory of runs that --store has")
    parser.add_argument("--write", action="store_true", help="put the table of --store into docs/without-data.md")
    asked = parsed(parser)
    for row in (row for row in ROWS if row.title in asked.rows or any(part == row.network for part in asked.rows)):
        work = task(asked.data, row.network, asked.images)
        before = work.accuracy(str(work.path))
        for seed in range(asked.seeds if row.decides and not asked.memory else 1):
            kept = json.loads(asked.store.read_text()) if asked.store and asked.store.exists() else {}
            there = kept.get(row.title, {"runs": {}})["runs"].get(str(seed))
            if (there is None) == asked.memory:
                continue
            again = partial(measured_again, row, seed, work)
            found = again(there) if asked.memory else measured(asked.data, row, seed, work)
            keep(asked.store, row.title, partial(_with, before, seed, found))
            print(json.dumps({"row": row.title, "seed": seed, "before": before, **found}), flush=True)
    if asked.write and asked.store:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), "runs", table(json.loads(asked.store.read_text()))))


if __name__ == "__main__":
    sys.exit(main())
