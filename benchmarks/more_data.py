"""What more real data would give: folds calibrated on 128 real inputs, and on half of the test inputs as well.

    python benchmarks/more_data.py [--rows "effnet_lite0 --target-macs 0.8" ...]

What the halves leave is tested, so that nothing is tested that was fitted on: both halves together are all test inputs,
by two folds. A ResNet-20 whose layers share weights has 512 training images of its own. Accuracies in percent, those
of the original in brackets; without data see without_data.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from nets import net, options, parsed
from numpy.typing import NDArray
from tasks import evaluation
from without_data import SHARED, run

from onnxfold.runtime.session import Session

Hits = NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """A network with the inputs that calibrate it, those that test it, and which of these it gets right [tests]."""

    path: Path
    calibration: Mapping[str, NDArray[Any]]
    test: Mapping[str, NDArray[Any]]
    hits: Callable[[Path], Hits]


def photographs(data: Path) -> Case:
    theirs, path = evaluation(data), data / "larger" / "effnet_lite0.onnx"
    x, labels, calibrating = theirs.photographs()

    def hits(version: Path) -> Hits:
        found = theirs.run(version, {"image": x[~calibrating]}).argmax(1)
        return np.asarray(found == labels[~calibrating])

    return Case(path, {"image": x[calibrating]}, {"image": x[~calibrating]}, hits)


def sentences(data: Path) -> Case:
    theirs, path = evaluation(data), data / "larger" / "minilm_l6.onnx"
    test = theirs.tokens("test")
    mask = test["attention_mask"][..., None]

    def nearest(version: Path) -> NDArray[np.int64]:
        means = (theirs.run(version, test) * mask).sum(1) / mask.sum(1)
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return np.asarray((means @ means.T - 9 * np.eye(len(means))).argmax(1))

    wanted = nearest(path)
    return Case(path, theirs.tokens("calib"), test, lambda version: nearest(version) == wanted)


CASES = {"effnet_lite0": photographs, "minilm_l6": sentences}
SHARING = "cifar10_resnet20_bn"
ROWS = (
    ("effnet_lite0", "--target-macs", "0.8"),
    ("effnet_lite0", "--target-macs", "0.8", "--refine"),
    ("minilm_l6", "--target-macs", "0.8", "--refine"),
    (SHARING, *SHARED),
)


def measured(data: Path, network: str, asked: tuple[str, ...]) -> Iterator[tuple[int, float, float]]:
    """(calibration samples, accuracy, that of the original), first with the usual 128 samples."""
    if network == SHARING:
        for count in (128, 512):
            real = net(data, network, others=count)
            source = Session(real.path).inputs[0].name
            with folded(real.path, asked, {source: real.unlabeled}) as version:
                yield count, real.top1(onnx.load(version)), real.top1(onnx.load(real.path))
        return
    case = CASES[network](data)
    right = case.hits(case.path)
    with folded(case.path, asked, case.calibration) as version:
        yield len(next(iter(case.calibration.values()))), *percent(case.hits(version), right)
    half, found = np.arange(len(right)) % 2 == 1, np.zeros(len(right), bool)
    for mine in (half, ~half):
        more = {name: np.concatenate([x, case.test[name][mine]]) for name, x in case.calibration.items()}
        with folded(case.path, asked, more) as version:
            found[~mine] = case.hits(version)[~mine]
    yield len(next(iter(more.values()))), *percent(found, right)


def percent(*hits: Hits) -> Iterator[float]:
    return (100 * float(one.mean()) for one in hits)


@contextmanager
def folded(path: Path, asked: tuple[str, ...], calibration: Mapping[str, NDArray[Any]]) -> Iterator[Path]:
    """What the command makes of a network with this calibration data, all of it."""
    with tempfile.TemporaryDirectory() as folder:
        out, inputs = Path(folder, "out.onnx"), Path(folder, "inputs.npz")
        np.savez(inputs, **calibration)
        count = str(len(next(iter(calibration.values()))))
        command = ["-m", "onnxfold", str(path), str(out), *asked, "--calibration", str(inputs), "--samples", count]
        run([*command, "--json"], Path(folder))
        yield out


def main() -> None:
    parser = options(__doc__ or "")
    titles = [" ".join(row) for row in ROWS]
    parser.add_argument("--rows", nargs="*", choices=titles, default=titles)
    asked = parsed(parser)
    for row in (row for row in ROWS if " ".join(row) in asked.rows):
        for count, accuracy, before in measured(asked.data, row[0], row[1:]):
            print(f"{' '.join(row):44} {count:4} samples: {accuracy:.1f} ({before:.1f})", flush=True)


if __name__ == "__main__":
    main()
