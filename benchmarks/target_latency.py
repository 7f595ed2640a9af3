"""What `--target-latency` makes when layers are timed, and when latency is taken to follow the MACs.

    python benchmarks/target_latency.py [--models NAME ...] [--target 0.75] [--effort balanced]
                                        [--ways MACs layers]

Each network is folded both ways to the same share of its latency, with 128 unlabeled inputs. The table has, for each
way, the latency (measured once more at the end, in turn with the original), the MACs, the true accuracy, how often a
candidate was timed, and what the first one was expected to take and took.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from latency import ratio
from nets import options, parsed
from tasks import task

import onnxfold
from onnxfold.errors import OnnxFoldError
from onnxfold.model.model import load
from onnxfold.planning import measured_targets, planner
from onnxfold.runtime.probe_inputs import index_limits, probe
from onnxfold.runtime.session import Session

NETWORKS = (
    "cifar10_resnet56_bn", "cifar10_resnet18w32_bn", "cifar10_squeezenet_bn", "imagenet_mobilenetv1_0.5_160",
    "imagenet_mobilenetv2_1.0_224", "imagenet_squeezenet10_dc_fused", "effnet_lite0",
)  # fmt: skip
_TIMED = re.compile(r"takes ([\d.]+) of the original's latency, expected ([\d.]+)")


class Timings(logging.Handler):
    """Collects what candidates took and were expected to take."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: list[tuple[float, float]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what a line of the log says."""
        if match := _TIMED.search(record.getMessage()):
            self.found.append((float(match[1]), float(match[2])))


@contextmanager
def timings() -> Iterator[Timings]:
    """What candidates take and are expected to take in here."""
    log, handler = logging.getLogger(measured_targets.__name__), Timings()
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.DEBUG)
    try:
        yield handler
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--models", nargs="+", default=list(NETWORKS))
    parser.add_argument("--target", type=float, default=0.75)
    parser.add_argument("--effort", default="balanced")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--ways", nargs="+", default=["MACs", "layers"])
    asked = parsed(parser)
    print(f"{'':32}{'':8}{'latency':>9}{'MACs':>7}{'accuracy':>10}{'timed':>7}{'first expected':>16}{'s':>7}")
    for name in asked.models:
        real = task(asked.data, name, 2000)
        original = load(real.path)
        old = Session(real.path)
        feeds = probe(old.inputs, batch=1, limits=index_limits(original.graph))
        print(f"{name:32}{'':8}{1:>9.2f}{1:>7.2f}{real.accuracy(str(real.path)):>10.1f}", flush=True)
        for way in asked.ways:
            blind = patch.object(planner, "latency_prices", lambda *_: None) if way == "MACs" else nullcontext()
            begin = time.perf_counter()
            with TemporaryDirectory() as folder, timings() as timed, blind:
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
            first = f"{timed.found[0][1]:.2f}, is {timed.found[0][0]:.2f}" if timed.found else ""
            print(
                f"{'':32}{way:8}{share:>9.2f}{macs:>7.2f}{right:>10.1f}{len(timed.found):>7}{first:>16}{taken:>7.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
