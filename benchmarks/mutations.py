"""Broken model files, thousands of them: each must be read, folded or refused in plain words, and nothing else.

    python benchmarks/mutations.py [--count 20000] [--seed 0] [--data ../shared/data] [--keep build/mutations]

Takes the models of models/ and, where they are, those of DATA under 2 MB; damages bytes or writes strange messages
(tests/mutants), and reads every result in a child process that may take 2 GB and three minutes: inspect, and for one
in four fold. Files that end in anything but a result or an OnnxFoldError are kept in KEEP; a fold that does not run
though the original does, or that fails its own checks, is such an end. Ends with 1 if there were any.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from mutants import DATA, Result, Runner, mutant  # noqa: E402
from nets import HERE  # noqa: E402

LARGEST = 2_000_000  # bytes
FOLDED = 4  # one in so many is folded too
EVERY = 500


def sources(data: Path) -> list[Path]:
    """The models to mutate, smallest first."""
    found = [*(ROOT / "models").glob("*.onnx"), *(data / "models").glob("*.onnx")]
    return sorted((path for path in found if path.stat().st_size < LARGEST), key=lambda path: path.stat().st_size)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=HERE)
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "mutations")
    asked = parser.parse_args()
    contents = {path.name: path.read_bytes() for path in sources(asked.data)}
    names, ends, errors = [*contents], Counter[str](), Counter[str]()
    failures, most, begin = list[str](), 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Runner() as runner:
        (Path(folder) / DATA).write_bytes(random.Random(0).randbytes(4096))
        path = Path(folder) / "mutant.onnx"
        for number in range(asked.seed, asked.seed + asked.count):
            name = names[number % len(names)]
            content, what = mutant(contents[name], number)
            path.write_bytes(content)
            result = runner.read(path, fold=number // len(names) % FOLDED == 0)
            ends[result.end] += 1
            errors[result.error] += bool(result.error)
            most = max(most, result.memory)
            if not result.clean:
                failures.append(f"{number} {name} {what}: {result.end} {_last(result)}")
                keep(asked.keep, f"{number}_{result.end}_{name}", content, result)
                print(failures[-1], flush=True)
            if (number + 1 - asked.seed) % EVERY == 0:
                print(f"{number + 1 - asked.seed} mutants, {len(failures)} failures, {most} MB at most", flush=True)
    seconds = time.perf_counter() - begin
    print(f"{asked.count} mutants of {len(names)} models in {seconds:.0f} s, {most} MB at most: {dict(ends)}")
    print(f"refusals: {dict(errors)}")
    print(f"{len(failures)} failures" + "".join(f"\n{one}" for one in failures))
    return 1 if failures else 0


def keep(folder: Path, name: str, content: bytes, result: Result) -> None:
    """The mutant, and what was said of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    (folder / f"{name}.txt").write_text(f"{result.end} {result.error}\n{result.text}\n", encoding="utf-8")


def _last(result: Result) -> str:
    lines = result.text.strip().splitlines()
    return f"{result.error} {lines[-1][:200] if lines else ''}"


if __name__ == "__main__":
    sys.exit(main())
