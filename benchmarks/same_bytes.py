"""Do these sources give the same files as others did? Folds a fixed list of models and prints hashes.

    python benchmarks/same_bytes.py [--data ../shared/data] [--only TEXT] > before.txt

Run it before and after a change that should change no result, and compare: ``diff before.txt after.txt``. Every line is
the hash of the output file (with its external data, without what it says of its making), the hash of the JSON report,
and the command. Reports are hashed without what is timed: seconds, latencies and remarks on them. Models of DATA that
are missing are skipped, saying so. Inputs are synthesized anew, in a cache that is thrown away.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nets import HERE

from onnxfold.cli.main import main as onnxfold

MODELS = Path(__file__).resolve().parents[1] / "models"
TIMED = ("seconds", "latency", "p90", "operators", "speedup", "share", "verdict", "provenance")  # beginnings of keys
REMARKS = ("slower on ", "of the latency in this check")  # in notes
CIFAR10 = ("cifar10/calib512.npz", "--preprocess", "0.485:0.456:0.406,0.229:0.224:0.225,nchw")
CALIBRATION = {
    "cifar10_resnet20_bn": CIFAR10,
    "cifar10_resnet20_fused": CIFAR10,
    "stories260K_dynamo": ("language/stories_calib.npz",),
}

OWN = ("digits_mlp", "digits_mobilenet", "digits_resnet_bn", "digits_resnet_fused", "digits_vgg")
FAST = ("--effort", "fast")
RUNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    *((name, FAST) for name in OWN),
    ("digits_mlp", ()),
    ("digits_mobilenet", ()),
    ("digits_mobilenet", ("--target-macs", "0.6")),
    ("digits_mobilenet", ("--target-size", "0.6", *FAST)),
    ("digits_mobilenet", ("--target-macs", "0.6", "--quantize")),
    ("digits_vgg", ("--ratio", "0.5", "--refine", "--steps", "20")),
    ("digits_vgg", ("--ratio", "0.4", "--quantize")),
    ("digits_vgg", ("--ratio", "0.4", "--method", "fold", "--save-as-external-data")),
    ("digits_vgg", ("--fuse", "mean", "--share", "25", *FAST)),
    ("digits_resnet_bn", ("--target-params", "0.5")),
    ("digits_resnet_bn", ("--fuse", "mean", "--share", "25")),
    ("digits_resnet_bn", ("--drop-blocks", "1")),
    ("digits_resnet_bn", ("--min-agreement", "0.9")),
    ("digits_resnet_fused", ("--ratio", "0.3", "--method", "functional-fold")),
    ("digits_resnet_fused", ("--ratio", "0.3", "--method", "prune-l1", *FAST)),
    ("digits_resnet_fused", ("--drop-blocks", "25%", "--fuse", "freeze", "--share", "25", *FAST)),
    ("digits_vgg", ("sweep",)),
    ("digits_resnet_bn", ("sweep", "--at", ".8,.5", *FAST)),
    ("digits_resnet_bn", ("layers",)),
    ("cifar10_resnet20_bn", ("--calibration", "--target-macs", "0.7")),
    ("cifar10_resnet20_bn", ("--ratio", "0.3", *FAST)),
    ("cifar10_resnet20_fused", ("--calibration", "--ratio", "0.3", "--refine", "--steps", "20")),
    ("cifar10_resnet20_fused", ("--calibration", "--ratio", "0.3", "--quantize")),
    ("vit_2_6_cifar10", ("--ratio", "0.3", *FAST)),
    ("stories260K_dynamo", ("--calibration", "--target-params", "0.8", "--samples", "32")),
    ("stories260K_dynamo", ("--ratio", "0.2", *FAST)),
    ("fastestdet", ("--target-macs", "0.8", *FAST)),
    ("shufflenet-v2-12-int8", ("--ratio", "0.2", *FAST)),
    ("point_history_lstm", ("--ratio", "0.3", *FAST)),
    ("dtln_1", ("--ratio", "0.3", *FAST)),
    ("oww_hey_jarvis", ("--ratio", "0.3", *FAST)),
    ("silero_vad_half", ("--ratio", "0.3", *FAST)),
)


def untimed(value: Any) -> Any:
    """A report without what differs between two runs of the same program."""
    if isinstance(value, dict):
        return {key: untimed(one) for key, one in value.items() if not key.startswith(TIMED)}
    if isinstance(value, list):
        return [untimed(one) for one in value if not (isinstance(one, str) and any(r in one for r in REMARKS))]
    return value


def digest(*files: Path) -> str:
    """The first 16 hexadecimal digits of the hash of files, missing ones left out; '-' where there is none."""
    there = [file for file in files if file.is_file()]
    return hashlib.sha256(b"".join(file.read_bytes() for file in there)).hexdigest()[:16] if there else "-"


def command(source: Path, output: Path, report: Path, given: tuple[str, ...], data: Path) -> list[str]:
    """The arguments of one run."""
    if given[:1] in (("sweep",), ("layers",)):
        return [given[0], str(source), *given[1:], "--quiet", "--report", str(report)]
    own, *more = CALIBRATION.get(source.stem, ("",))
    filled = [text for one in given for text in ((one, str(data / own), *more) if one == "--calibration" else (one,))]
    return [str(source), str(output), *filled, "--quiet", "--no-provenance", "--report", str(report)]


def hashes(source: Path, given: tuple[str, ...], data: Path, folder: Path) -> tuple[str, str, str]:
    """(of the output, of the report, how it ended)."""
    output, report = folder / "out.onnx", folder / "report.json"
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = onnxfold(command(source, output, report, given, data))
    found = "-"
    if report.is_file():
        read = untimed(json.loads(report.read_text(encoding="utf-8")))
        for key in ("model", "output"):  # paths
            read.pop(key, None)
        found = hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:16]
    last = said.getvalue().strip().replace(str(folder), "").splitlines()[-1:]
    end = f"exit {code}" + "".join(f" {line}" for line in last if code)
    return digest(output, *sorted(folder.glob("out.onnx.*"))), found, end


def runs(data: Path, only: str) -> Iterator[tuple[str, Path, tuple[str, ...]]]:
    """Every run, as it is shown, with its model."""
    for name, given in RUNS:
        shown = f"{name} {' '.join(given)}".strip()
        here = MODELS / f"{name}.onnx"
        if only in shown:
            yield shown, here if here.is_file() else data / "models" / f"{name}.onnx", given


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE)
    parser.add_argument("--only", default="", metavar="TEXT", help="runs whose line holds this text")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        for shown, source, given in runs(options.data, options.only):
            if not source.is_file():
                print(f"{'skipped':16} {'no such model':16} {shown}", flush=True)
                continue
            with tempfile.TemporaryDirectory(prefix="same-bytes-") as folder:
                output, report, end = hashes(source, given, options.data, Path(folder))
            print(f"{output:16} {report:16} {shown}: {end}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
