"""How much faster folded models run: folded / original latency at -30 % MACs, with one thread and with two.

    python benchmarks/latency.py [--models NAME ...] [--macs 0.7] [--effort fast] [--rounds 60] [--operators]
                                 [--round-to auto]

Medians of interleaved runs (turn by turn in one process, threads of the other model stopped), one sample a run.
`--operators` says where the time goes: what onnxruntime spends on each operator, of the whole, and how much of that is
left in the folded model.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nets import options, parsed

import onnxfold
from onnxfold.errors import OnnxFoldError
from onnxfold.evaluation.operator_profile import operator_times
from onnxfold.model.model import load
from onnxfold.model.save import inline
from onnxfold.runtime.probe_inputs import index_limits, probe
from onnxfold.runtime.session import Feeds, Session

CIFAR = (
    "cifar10_resnet20_bn", "cifar10_resnet20_fused", "cifar10_resnet56_bn", "cifar10_resnet56_fused",
    "cifar10_resnet32pool_bn", "cifar10_resnet18w32_bn", "cifar10_simpnet300k_bn", "cifar10_squeezenet_bn",
    "cifar10_densenet40_12_bn", "cifar10_resnet_6blk_mlperftiny",
)  # fmt: skip
CORPUS = (
    "imagenet_mobilenetv1_0.5_160", "imagenet_mobilenetv2_1.0_224", "imagenet_squeezenet10_dc_fused",
    "ultraface_RFB320", "nanodet_m", "fastestdet", "ppocr_mobile_v1.1_det", "retinaface_mbnet0.25",
    "kws_dscnn_mlperftiny", "oww_embedding", "super_resolution_zoo",
)  # fmt: skip
SHAPES = {"ppocr_mobile_v1.1_det": {"image": (1, 3, 320, 320)}, "retinaface_mbnet0.25": {"input": (1, 3, 320, 320)}}


def medians(runs: Sequence[tuple[Session, Feeds]], rounds: int) -> list[float]:
    """Median seconds of each, run in turn."""
    for session, feeds in runs:
        session.run(feeds)
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for (session, feeds), taken in zip(runs, times, strict=True):
            session.run(feeds)  # the first of a turn pays for caches that the others had
            begin = time.perf_counter()
            session.run(feeds)
            taken.append(time.perf_counter() - begin)
    return [statistics.median(taken) for taken in times]


def ratio(old: Session, new: Session, feeds: Feeds, rounds: int) -> float:
    """Median latency of `new` over that of `old`."""
    before, after = medians([(old, feeds), (new, feeds)], rounds)
    return after / before


def operators(old: bytes, new: bytes, feeds: Feeds) -> str:
    """The operators that most time goes to: the share of each in the original, and its time after over before."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = (operator_times(one, feeds, Path(folder, "profile")) for one in (old, new))
    whole = sum(before.values())
    largest = sorted((op for op in before if before[op] > 0.02 * whole), key=lambda op: -before[op])
    said = ", ".join(f"{op} {100 * before[op] / whole:.0f} % x{after.get(op, 0) / before[op]:.2f}" for op in largest)
    return f"{said}; all x{sum(after.values()) / whole:.2f}"


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--models", nargs="+", default=[*CIFAR, *CORPUS])
    parser.add_argument("--macs", type=float, default=0.7)
    parser.add_argument("--effort", default="fast")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--operators", action="store_true")
    parser.add_argument("--round-to", type=lambda text: text if text == "auto" else int(text), default=8)
    asked = parsed(parser)
    print(f"{'':34}{'MACs':>6}{'1 thread':>10}{'2 threads':>11}")
    found: list[list[float]] = []
    for name in asked.models:
        path, shapes = asked.data / "models" / f"{name}.onnx", SHAPES.get(name)
        how: dict[str, Any] = {"target_macs": asked.macs, "effort": asked.effort, "input_shapes": shapes}
        how["round_to"] = asked.round_to
        try:
            result = onnxfold.fold(path, latency=False, **how)
        except OnnxFoldError as error:
            print(f"{name:34}{error}")
            continue
        assert result.report.after is not None
        original = load(path)
        limits, row = index_limits(original.graph), list[float]()
        files = inline(original.proto, path.parent).SerializeToString(), result.model.SerializeToString()
        for threads in (1, 2):
            old, new = (Session(one, threads=threads) for one in files)
            feeds = probe(old.inputs, batch=1, shapes=shapes, limits=limits)
            row.append(ratio(old, new, feeds, asked.rounds))
        left = result.report.after.macs / result.report.before.macs
        print(f"{name:34}{left:>6.2f}{row[0]:>10.2f}{row[1]:>11.2f}", flush=True)
        found.append(row)
        if asked.operators:
            print(f"    {operators(*files, feeds)}", flush=True)
    for threads, values in zip((1, 2), np.array(found).T, strict=True):
        print(f"{threads} thread(s): median {np.median(values):.2f}, worst {values.max():.2f}")


if __name__ == "__main__":
    main()
