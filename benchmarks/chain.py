"""Fold, refine and INT8 as one chain, against INT8 alone at the same size: the table of docs/chain.md.

    python benchmarks/chain.py [--steps N] [--keep FOLDER] [--write]

A CIFAR-10 ResNet-56 as the tool makes it (`onnxfold IN OUT --quantize`), with unlabeled training images: INT8 alone,
half of the multiply-accumulates and INT8, the same refined. Against INT8 alone at the same size: what floats reach in
the bytes of INT8 alone, and what the chain reaches in those of a ResNet-20 in INT8. Latency is that of batch 1 on one
thread as a share of the original's, medians of interleaved runs, of several sessions. `--keep` stores the models, and
takes those that are there, so that latencies can be measured again when the machine is quiet; `--write` puts the table
into docs/chain.md.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from figures import filled
from latency import ratio
from nets import Net, net, options, parsed

import onnxfold
from onnxfold.progress import on_terminal
from onnxfold.report.saved import save
from onnxfold.runtime.session import Session

LARGE, SMALL = "cifar10_resnet56_bn", "cifar10_resnet20_bn"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "chain.md"
CLOSE = 0.02  # of the bytes: closer counts as the same size
SESSIONS = 5  # where a session lies in memory can cost it a third


@dataclass(frozen=True)
class Row:
    """A model: what it is, which rows it is `beside` at the same size, bytes of the file, latency over the original's,
    top-1 in percent."""

    title: str
    beside: str
    size: int
    latency: float
    top1: float


@dataclass(frozen=True)
class Producer:
    """Makes models, each stored once in `folder`."""

    large: Net
    small: Net
    folder: Path
    steps: int | None
    round_to: int

    def made(self, name: str, real: Net, **how: Any) -> Path:
        """The file of the model called `name`, made of `real` with these arguments of `onnxfold.fold`."""
        target = self.folder / f"{name}.onnx"
        if not target.exists():
            made = onnxfold.fold(
                real.path, target, round_to=self.round_to, calibration=real.unlabeled, samples=len(real.unlabeled),
                latency=False, progress=on_terminal, **how,
            )  # fmt: skip
            save(made.report, report_of(target))
        return target

    def refined(self, name: str, **how: Any) -> Path:
        """The same of the large network, refined."""
        return self.made(name, self.large, refine=True, steps=self.steps, **how)


def chain(work: Producer) -> Iterator[tuple[str, str, Path]]:
    """(title, size class, file) of every row, from the largest file to the smallest."""
    large, small = work.large, work.small
    yield "ResNet-56", "", large.path
    alone = work.made("int8", large, ratio=0.0, quantize=True)
    yield "INT8 alone", "A", alone
    share = alone.stat().st_size / large.path.stat().st_size
    yield "fold, in floats", "A", work.made("floats", large, target_size=share)
    yield "fold + refine, in floats", "A", work.refined("floats refined", target_size=share)
    half = {"target_macs": 0.5}
    folded = work.made("half int8", large, **half, quantize=True)
    yield "fold to .50 of the MACs + INT8", "B", folded
    yield "the same + refine", "B", work.refined("half refined int8", **half, quantize=True)
    yield "ResNet-20", "", small.path
    other = work.made("small int8", small, ratio=0.0, quantize=True)
    share = in_floats(other, (alone, folded)) / large.path.stat().st_size
    yield "ResNet-20, INT8 alone", "C", other
    yield (
        f"ResNet-56, fold to {share:.2f} of the bytes + INT8",
        "C",
        work.made("least int8", large, target_size=share, quantize=True),
    )
    yield "the same + refine", "C", work.refined("least refined int8", target_size=share, quantize=True)


def report_of(made: Path) -> Path:
    """The report beside a model."""
    return made.with_suffix(".json")


def in_floats(wanted: Path, known: tuple[Path, Path]) -> float:
    """Bytes in floats that make the file `wanted` in INT8, on the line through two models `known` in both."""
    (x0, y0), (x1, y1) = [
        (found["file_before"], found["file_after"])
        for found in (json.loads(report_of(made).read_text())["quantization"] for made in known)
    ]
    return float(x0 + (wanted.stat().st_size - y0) * (x1 - x0) / (y1 - y0))


def measured(work: Producer, title: str, beside: str, path: Path, rounds: int) -> Row:
    """One row. Both networks have the same test images, and call their input the same."""
    ratios = []
    for _ in range(SESSIONS if path != work.large.path else 0):
        old, new = [Session(file.read_bytes(), threads=1) for file in (work.large.path, path)]
        ratios.append(ratio(old, new, {old.inputs[0].name: work.large.images[:1]}, rounds))
    latency = statistics.median(ratios) if ratios else 1.0
    return Row(title, beside, path.stat().st_size, latency, work.large.top1(onnx.load(path)))


def table(rows: list[Row]) -> str:
    """As it stands in the page. Rows of a size class whose files are not of one size say by how much they differ."""
    first: dict[str, int] = {}
    lines = ["| | same size | file, kB | latency | top-1 |", "|---|---|---|---|---|"]
    for row in rows:
        off = row.size / first.setdefault(row.beside, row.size) - 1 if row.beside else 0.0
        same = row.beside + (f" ({off:+.0%})" if abs(off) > CLOSE else "")
        lines.append(f"| {row.title} | {same} | {row.size / 1000:.0f} | {row.latency:.2f} | {row.top1:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--steps", type=int, help="of refinement (default: the tool's)")
    parser.add_argument("--samples", type=int, default=512, help="unlabeled training images, up to 512 (default)")
    parser.add_argument("--round-to", type=int, default=8, help="kept widths are multiples of this (default 8)")
    parser.add_argument("--rounds", type=int, default=300, help="runs of each model that latencies are medians of")
    parser.add_argument("--keep", type=Path, help="folder for the models; those in it are not made again")
    parser.add_argument("--write", action="store_true", help="put the table into docs/chain.md")
    asked = parsed(parser)
    nets = [net(asked.data, name, asked.images, asked.samples) for name in (LARGE, SMALL)]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        work = Producer(nets[0], nets[1], asked.keep or Path(scratch), asked.steps, asked.round_to)
        work.folder.mkdir(parents=True, exist_ok=True)
        for title, beside, path in chain(work):
            rows.append(measured(work, title, beside, path, asked.rounds))
            print(rows[-1], flush=True)
    made = table(rows)
    print(made)
    if asked.write:
        PAGE.write_text(filled(PAGE.read_text(), "chain", made))


if __name__ == "__main__":
    main()
