"""What `--target-latency` makes: of the first plan that is fast enough, and of the best of those that it tries.

    python benchmarks/target_latency.py [--models NAME ...] [--target 0.75] [--effort balanced] [--ways first tried]

Each network is folded both ways to the same share of its latency, with 128 unlabeled inputs. The table has, for each
way, the latency (measured once more at the end, in turn with the original), the MACs, the true accuracy, how often a
candidate was timed, and the seconds of the fold.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from latency import ratio
from nets import options, parsed
from onnx import ModelProto
from tasks import task

import onnxfold
from onnxfold.errors import OnnxFoldError
from onnxfold.evaluation.latency import Profiler
from onnxfold.model.model import load
from onnxfold.planning import search
from onnxfold.planning.allocation import Plan, Step
from onnxfold.runtime.probe_inputs import index_limits, probe
from onnxfold.runtime.session import Session

NETWORKS = (
    "cifar10_resnet56_bn", "cifar10_resnet18w32_bn", "cifar10_squeezenet_bn", "imagenet_mobilenetv1_0.5_160",
    "imagenet_mobilenetv2_1.0_224", "imagenet_squeezenet10_dc_fused", "effnet_lite0",
)  # fmt: skip


class Timings:
    """Counts what is timed."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Timings:
        real = Profiler.latency

        def counted(profiler: Profiler, proto: ModelProto) -> float:
            self.count += 1
            return real(profiler, proto)

        self._patch = patch.object(Profiler, "latency", counted)
        self._patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.stop()


def first(_: object, step: Step, merge: object) -> Plan:
    """The plan of a step as it is."""
    return Plan(step.keep)


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--models", nargs="+", default=list(NETWORKS))
    parser.add_argument("--target", type=float, default=0.75)
    parser.add_argument("--effort", default="balanced")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--ways", nargs="+", default=["first", "tried"])
    asked = parsed(parser)
    print(f"{'':32}{'':8}{'latency':>9}{'MACs':>7}{'accuracy':>10}{'timed':>7}{'s':>7}")
    for name in asked.models:
        real = task(asked.data, name, 2000)
        original = load(real.path)
        old = Session(real.path)
        feeds = probe(old.inputs, batch=1, limits=index_limits(original.graph))
        print(f"{name:32}{'':8}{1:>9.2f}{1:>7.2f}{real.accuracy(str(real.path)):>10.1f}", flush=True)
        for way in asked.ways:
            blind = patch.object(search._Choice, "as_fast", first) if way == "first" else nullcontext()
            begin = time.perf_counter()
            with TemporaryDirectory() as folder, Timings() as timed, blind:
                out = Path(folder) / "out.onnx"
                try:
                    result = onnxfold.fold(
                        real.path, out, target_latency=asked.target, effort=asked.effort, latency=False,
                        calibration=real.calibration,
                    )  # fmt: skip
                except OnnxFoldError as error:
                    print(f"{'':32}{way:8}{error}")
                    continue
                taken = time.perf_counter() - begin
                assert result.report.after is not None
                macs = result.report.after.macs / result.report.before.macs
                share = ratio(old, Session(out), feeds, asked.rounds)
                right = real.accuracy(str(out))
            print(
                f"{'':32}{way:8}{share:>9.2f}{macs:>7.2f}{right:>10.1f}{timed.count:>7}{taken:>7.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
