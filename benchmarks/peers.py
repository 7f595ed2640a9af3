"""What onnxfold reaches of the architectures of torchvision, timm and transformers, exported with random weights.

    VENV/bin/python benchmarks/peers_nets.py FOLDER [--only PATTERN]     # where torch is: writes the ONNX files
    python benchmarks/peers.py FOLDER --store peers.jsonl [--only PATTERN] [--minutes 60]
    python benchmarks/peers.py --store peers.jsonl --table docs/coverage.md

For every file: the share of the parameters in reach, and what that share would be if the residual stream under norms
could be folded too; the parameters left after folding `--ratio` of every group from weights alone; the errors of both
oracles of onnxfold/testing.py beside those of their controls. Each file is measured in a process with limits of
its own, and each result is a line of `--store`; a run goes on where the last one stopped. `--table` writes a table by
family into a Markdown page.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from peers_nets import Limits, apart, peers

import onnxfold
from onnxfold.errors import OnnxFoldError
from onnxfold.model.model import load
from onnxfold.testing import duplicate, permute

RTOL = 1e-4  # of both oracles
CONTROL = 1e-3  # what a negative control must exceed
PROOFS = ("permute", "duplicate")
LISTED = 3  # reasons that keep most of a network
NORMS = re.compile(r"(\w*(Norm|Normalization)|ReduceMean|ReduceL2|ReduceSumSquare) mixes this axis")
Row = Mapping[str, Any]


def measure(path: Path, ratio: float, out: Path) -> None:
    """Measure one file; `out` is written after every figure, so that none is lost when the time is up."""
    seen = onnxfold.inspect(path)
    assert seen.coverage is not None
    total = seen.before.parameters
    kept = {one.kind: one.parameters for one in seen.refusals if one.parameters}
    stream = sum(count for kind, count in kept.items() if NORMS.match(kind))
    row: dict[str, Any] = {
        "parameters": total, "groups": len(seen.groups), "reach": seen.coverage.parameters,
        "with_stream": min(1.0, seen.coverage.parameters + stream / max(1, total)), "kept": kept,
        "notes": list(seen.notes),
    }  # fmt: skip
    out.write_text(json.dumps(row))
    if not seen.groups:
        return
    row |= folded(path, ratio)
    out.write_text(json.dumps(row))
    for which in (permute, duplicate):
        row[which.__name__] = oracle(which, path)
        out.write_text(json.dumps(row))


def folded(path: Path, ratio: float) -> dict[str, Any]:
    """Parameters and MACs left after a fold from weights, as shares; or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = onnxfold.fold(
                path, Path(folder) / "out.onnx", ratio=ratio, effort="fast", round_to=1, latency=False, recovery="none"
            )
        except OnnxFoldError as error:
            return {"fold": f"{type(error).__name__}: {error}"[:300]}
    before, after = done.report.before, done.report.after
    assert after is not None
    return {"left": after.parameters / before.parameters, "macs": after.macs / max(1, before.macs)}


def oracle(which: Any, path: Path) -> dict[str, Any]:
    """Error and control of an oracle: with one sample where the batch is fixed inside, with small inputs where usual
    ones hide the control."""
    model, found = load(path, None), dict[str, Any]()
    for seed, (batch, scale) in enumerate(((2, 1.0), (1, 1.0), (2, 0.1))):  # a group of two may be left in its order
        try:
            result = which(model, seed=seed, batch=batch, scale=scale)
        except OnnxFoldError as error:
            found = found or {"failed": f"{type(error).__name__}: {error}"[:300]}
            continue
        found = {"error": result.error, "control": result.control}
        if result.control > CONTROL:
            break
    return found


# the table -----------------------------------------------------------------------------------------------------------


def rows_of(store: Path) -> list[dict[str, Any]]:
    """The last line of every architecture, in the order of the lists."""
    if not store.exists():
        return []
    last = {row["key"]: row for row in map(json.loads, store.read_text(encoding="utf-8").splitlines())}
    return [last[peer.key] for peer in peers() if peer.key in last]


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def proof(found: Mapping[str, Any] | None) -> str:
    if not found or "error" not in found:
        return "" if not found else "does not run"
    return f"{found['error']:.0e} ({found['control']:.0e})"


def wrongs(row: Row) -> list[str]:
    """What must not be in a line: an oracle that fails, a fold or an analysis that ends in an error of ours."""
    found = [row["error"]] if row.get("error") else []
    for which in ("permute", "duplicate"):
        one = row.get(which, {})
        found += [f"{which}: error {one['error']:.0e}"] if one.get("error", 0) > RTOL else []
        found += [f"{which}: blind"] if one.get("control", 1) < CONTROL else []
        found += [f"{which}: {one['failed']}"] if "failed" in one else []
    return found + ([row["fold"]] if row.get("fold") else [])


def families(rows: Sequence[Row]) -> list[str]:
    """Medians by library and kind."""
    lines = [
        "| library | kind | measured | reach, median | least | with the stream, median | parameters left, median "
        "| worst permute | worst duplicate |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for library, kind in dict.fromkeys((row["library"], row["kind"]) for row in rows if "reach" in row):
        these = [r for r in rows if (r["library"], r["kind"]) == (library, kind) and "reach" in r]
        reach, left = [r["reach"] for r in these], [r["left"] for r in these if "left" in r]
        worst = [max((r[w]["error"] for r in these if "error" in r.get(w, {})), default=0.0) for w in PROOFS]
        lines.append(
            f"| {library} | {kind} | {len(these)} | {percent(median(reach))} | {percent(min(reach))} "
            f"| {percent(median(r['with_stream'] for r in these))} | {median(left) if left else 1:.2f} "
            f"| {worst[0]:.0e} | {worst[1]:.0e} |"
        )
    return lines


def single(row: Row) -> str:
    """The line of one network: figures, and what keeps the most of it."""
    most = sorted(row["kept"].items(), key=lambda one: -one[1])[:LISTED]
    why = "; ".join(
        f"{kind} {percent(n / max(1, row['parameters']))}" for kind, n in most if n > row["parameters"] / 200
    )
    left = f"{row['left']:.2f}" if "left" in row else ""
    cells = (
        row["key"], f"{row['parameters']:,}", percent(row["reach"]), percent(row["with_stream"]), left,
        *(proof(row.get(which)) for which in PROOFS), why,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def reasons(rows: Sequence[Row]) -> list[str]:
    """What keeps parameters, by the mean share of a network that it keeps."""
    cost, nets = Counter[str](), Counter[str]()
    for row in rows:
        for kind, count in row["kept"].items():
            cost[kind] += count / max(1, row["parameters"])
            nets[kind] += 1
    lines = ["| kept because of | share of a network, mean over all | networks |", "|---|---|---|"]
    return lines + [
        f"| {kind} | {100 * cost[kind] / len(rows):.1f} % | {nets[kind]} |" for kind, _ in cost.most_common(12)
    ]


def table(rows: Sequence[Row]) -> str:
    """The tables of the page: by family, what keeps the rest, and every network."""
    seen = [row for row in rows if "reach" in row]
    head = [
        "| network | parameters | in reach | with the stream | left | permute (control) | duplicate (control) | kept |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines = [*families(seen), "", *reasons(seen), "", "<details><summary>Every network</summary>", ""]
    return "\n".join([*lines, *head, *map(single, seen), "", "</details>"]) + "\n"


def write(text: str, page: Path) -> None:
    """Replace what stands between the two marks of `page`."""
    begin, end = "<!-- generated: peers -->\n", "<!-- end of peers -->\n"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    page.write_text(before + begin + text + end + rest.partition(end)[2], encoding="utf-8")


# the command ---------------------------------------------------------------------------------------------------------


def run(asked: argparse.Namespace) -> None:
    """Measure the files that the store lacks, as long as there is time."""
    begin, done = time.perf_counter(), set() if asked.again else {row["key"] for row in rows_of(asked.store)}
    there = {peer: peer.path(asked.folder) for peer in peers() if re.search(asked.only, peer.key)}
    chosen = {peer: path for peer, path in there.items() if path.exists() and peer.key not in done}
    for peer, path in sorted(chosen.items(), key=lambda one: one[1].stat().st_size):  # the quickest first
        if time.perf_counter() - begin > 60 * asked.minutes:
            break
        row = {"key": peer.key, "library": peer.library, "kind": peer.kind, **figures(path, asked)}
        with asked.store.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        shown = [percent(row.get("reach")), f"{row['left']:.2f}" if "left" in row else ""]
        shown += [proof(row.get(which)) for which in PROOFS] + [f"WRONG: {text}" for text in wrongs(row)]
        print(f"{peer.key:52}", *shown, sep="  ", flush=True)


def figures(path: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """All that is measured of a file; `error` tells what stopped it."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        wrong = apart(lambda: measure(path, asked.ratio, found), Limits(asked.seconds, asked.gigabytes))
        row: dict[str, Any] = json.loads(found.read_text()) if found.exists() else {}
    return {**row, "error": wrong} if wrong else row


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="where peers_nets.py put the files")
    parser.add_argument("--store", type=Path, default=Path("peers.jsonl"), help="results, a line each")
    parser.add_argument("--only", default="", metavar="PATTERN", help="those whose name it finds: 'timm/swin'")
    parser.add_argument("--again", action="store_true", help="also those that the store has")
    parser.add_argument("--minutes", type=float, default=60, help="start none after so long (default: 60)")
    parser.add_argument("--seconds", type=int, default=150, help="of the processor for a file (default: 150)")
    parser.add_argument("--gigabytes", type=int, default=6, help="of memory for a file (default: 6)")
    parser.add_argument("--ratio", type=float, default=0.25, help="of the channels that go (default: 0.25)")
    parser.add_argument("--table", type=Path, metavar="PAGE", help="write the tables into this page, measure nothing")
    return parser


def main() -> int:
    parser = arguments()
    asked = parser.parse_args()
    if asked.table:
        write(table(rows_of(asked.store)), asked.table)
        return 0
    if asked.folder is None:
        parser.error("name the FOLDER with the files that peers_nets.py wrote, or a page with --table")
    run(asked)
    return int(any(wrongs(row) for row in rows_of(asked.store)))


if __name__ == "__main__":
    sys.exit(main())
