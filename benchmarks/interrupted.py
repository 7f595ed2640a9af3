"""Ends runs at random moments, by SIGTERM and by SIGKILL: is the target whole or absent each time, and does the next
run leave nothing but its result, with the bytes of an undisturbed one?

    python benchmarks/interrupted.py --terms 50 --kills 50

goes over plain folds, --refine, --quantize, external data and --resume in turn, with a model of models/. A moment is a
share of what an undisturbed run took, from when Python has started until a little after its end. With --blocks 40 there
is a run on a large model (gated MLPs, 25 MB a block, streamed) as well, killed ten times and continued each time.
Exit code 1 if anything is amiss.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from gated import write_gated

ROOT = Path(__file__).resolve().parents[1]
HIDDEN, WIDTH = 1024, 2048
START = 0.1  # seconds until Python has started and signals are handled: nothing is written before
FOREIGN = {".ses"}  # what onnxruntime keeps in the temporary folder
KINDS: Mapping[str, Sequence[str]] = {
    "plain": ("--ratio=0.5", "--effort=fast"),
    "refine": ("--ratio=0.5", "--refine", "--steps=20"),
    "quantize": ("--ratio=0.4", "--quantize"),
    "external": ("--ratio=0.5", "--effort=fast", "--save-as-external-data"),
    "resume": ("--ratio=0.5", "--effort=fast", "--save-as-external-data", "--resume"),
}
LARGE = ("--effort=fast", "--max-memory=1G", "--resume")


@dataclass(frozen=True)
class Place:
    """Folders of one kind of run; all are empty but for the source."""

    source: Path
    target: Path
    scratch: Path
    cache: Path

    @classmethod
    def make(cls, folder: Path, source: Path) -> Place:
        for name in ("target", "scratch", "cache"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        return cls(source, folder / "target", folder / "scratch", folder / "cache")

    def run(self, options: Sequence[str]) -> subprocess.Popen[bytes]:
        """A fold, begun."""
        environment = {**os.environ, "TMPDIR": str(self.scratch), "XDG_CACHE_HOME": str(self.cache)}
        command = [sys.executable, "-m", "onnxfold", str(self.source), str(self.target / "out.onnx"), "-q", *options]
        return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    def found(self) -> dict[str, str]:
        """Digests of the target and of its data, by name."""
        found = {}
        for path in sorted(self.target.glob("out.onnx*")):
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        return found

    def hidden(self) -> list[str]:
        """What else lies around."""
        beside = [path.name for path in self.target.iterdir() if path.name.startswith(".")]
        return [*beside, *(path.name for path in self.scratch.iterdir() if path.name not in FOREIGN)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terms", type=int, default=50, help="SIGTERMs, over all kinds")
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs, over all kinds")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "digits_vgg.onnx")
    parser.add_argument("--blocks", type=int, default=0, help="also a large model of so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for temporary files")
    asked = parser.parse_args()
    rng, amiss = random.Random(asked.seed), 0
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        for number, (kind, options) in enumerate(KINDS.items()):
            signals = [signal.SIGTERM] * share(asked.terms, number) + [signal.SIGKILL] * share(asked.kills, number)
            if signals:
                amiss += over(Place.make(Path(folder) / kind, asked.model), kind, options, signals, rng)
        if asked.blocks:
            source = write_gated(Path(folder) / "in.onnx", asked.blocks, HIDDEN, WIDTH)
            amiss += going_on(Place.make(Path(folder) / "large", source), 10, rng)
    print(f"{amiss} amiss")
    return int(bool(amiss))


def share(count: int, number: int) -> int:
    """How many of `count` fall to the kind of a number."""
    return count // len(KINDS) + (number < count % len(KINDS))


def over(place: Place, kind: str, options: Sequence[str], signals: Sequence[signal.Signals], rng: random.Random) -> int:
    """How often something was amiss: each run on an empty target, ended once, then once more undisturbed."""
    place.run(options).wait()  # with it, synthetic inputs are in the cache
    expected, begin = place.found(), time.perf_counter()
    assert place.run(options).wait() == 0 and place.found() == expected, "an undisturbed run gives the same bytes"
    took, amiss = time.perf_counter() - begin, 0
    for one in signals:
        shutil.rmtree(place.target)
        place.target.mkdir()
        moment = rng.uniform(START, took * 1.05)
        child = place.run(options)
        try:
            code = child.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            child.send_signal(one)
            code = child.wait()
        found, hidden = place.found(), place.hidden()
        after = place.run(options).wait(), place.found(), place.hidden()
        problems = list(judged(code, one, found, expected, [n for n in hidden if n != ".out.onnx.onnxfold"]))
        if after != (0, expected, []):
            problems.append(f"the next run: code {after[0]}, {sorted(after[1])}, left behind {after[2]}")
        amiss += bool(problems)
        state = "whole" if found == expected else "absent" if "out.onnx" not in found else "BROKEN"
        said = "; ".join(problems) or "ok"
        print(f"{kind}: {one.name} at {moment:.2f} of {took:.2f} s: code {code}, target {state}, {hidden}: {said}")
    return amiss


def judged(
    code: int, one: signal.Signals, found: Mapping[str, str], expected: Mapping[str, str], hidden: Sequence[str]
) -> list[str]:
    """What is wrong with the state that a run left which was ended by a signal."""
    problems = []
    if "out.onnx" in found and any(found.get(name) != digest for name, digest in expected.items()):
        problems.append("the target is broken")
    if one is signal.SIGKILL:
        return problems
    if code not in (0, 128 + one, -one):  # -one: before the first line of ours ran, or after the last
        problems.append(f"exit code {code}")
    if hidden or found not in ({}, expected):
        problems.append(f"left behind: {[*hidden, *found]}")
    return problems


def going_on(place: Place, kills: int, rng: random.Random) -> int:
    """How often something was amiss on a large model that is killed again and again, counting on from kill to kill and
    without the time that it takes to load the model, which every run needs."""
    options = (*LARGE, r"--group-ratio=layers\.\d*[05]\.=0.4")
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "onnxfold", str(place.source), "--inspect", "-q"], check=True)
    start, begin = time.perf_counter() - begin, time.perf_counter()
    place.run(options).wait()
    took, expected, amiss, at = time.perf_counter() - begin, place.found(), 0, 0.0
    print(f"{place.source.with_suffix('.weights').stat().st_size / 1e9:.2f} GB folded in {took:.0f} s")
    shutil.rmtree(place.target)
    place.target.mkdir()
    for moment in sorted(rng.uniform(0, max(1.0, took - start)) for _ in range(kills)):
        child = place.run(options)
        try:
            child.wait(timeout=start + moment - at)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        at, found = moment, place.found()
        broken = bool(judged(0, signal.SIGKILL, found, expected, []))
        amiss += broken
        held = len(list(place.target.glob(".out.onnx.onnxfold/*.npz")))
        state = "BROKEN" if broken else "whole" if found == expected else "absent"
        print(f"killed at {moment:.0f} s: {held} groups kept, target {state}")
    code = place.run(options).wait()
    same, left = place.found() == expected, place.hidden()
    print(f"then undisturbed: exit code {code}, {'the same bytes' if same else 'OTHER BYTES'}, left behind: {left}")
    return amiss + bool(code or not same or left)


if __name__ == "__main__":
    sys.exit(main())
