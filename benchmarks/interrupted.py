"""Kills runs on a large model at random moments and goes on with --resume: is the target absent or whole each time, and
are the last run's bytes those of an undisturbed one?

    python benchmarks/interrupted.py --kills 10 --blocks 40

writes a model of gated MLPs (25 MB a block) into a temporary folder, folds it once, then again with kills (SIGKILL,
at random moments of what the undisturbed run took, counting on from kill to kill and without the time that it takes to
load the model, which every run needs). Exit code 1 if anything is amiss.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from gated import write_gated

HIDDEN, WIDTH = 1024, 2048


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--folded", default=r"layers\.\d*[05]\.=0.4", help="which groups (--group-ratio)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for temporary files")
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        source = write_gated(Path(folder) / "in.onnx", asked.blocks, HIDDEN, WIDTH)
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "onnxfold", str(source), "--inspect", "-q"], check=True)
        start, begin = time.perf_counter() - begin, time.perf_counter()
        run(source, Path(folder) / "whole", asked.folded).wait()
        took, expected = time.perf_counter() - begin, files(Path(folder) / "whole")
        print(f"{source.with_suffix('.weights').stat().st_size / 1e9:.2f} GB folded in {took:.0f} s")
        moments = sorted(rng.uniform(0, took - start) for _ in range(asked.kills))
        cut, amiss, at, done = Path(folder) / "cut", 0, 0.0, False
        for moment in moments:
            child = run(source, cut, asked.folded)
            try:
                child.wait(timeout=start + moment - at)
                done = True
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            at, found = moment, files(cut)
            whole = found == expected
            amiss += not (whole or "out.onnx" not in found)
            held = len(list(cut.glob(".out.onnx.onnxfold/*.npz")))
            print(f"killed at {moment:.0f} s: {'ended' if done else f'{held} groups kept'}, target", end=" ")
            print("whole" if whole else "absent" if "out.onnx" not in found else "BROKEN")
        code = run(source, cut, asked.folded).wait()
        same, left = files(cut) == expected, [path.name for path in cut.iterdir() if path.name not in expected]
        print(f"then undisturbed: exit code {code}, {'the same bytes' if same else 'OTHER BYTES'}, left behind: {left}")
        return int(bool(amiss or code or not same or left))


def run(source: Path, folder: Path, folded: str) -> subprocess.Popen[bytes]:
    """A fold into `folder`, begun."""
    folder.mkdir(exist_ok=True)
    options: Sequence[str] = ("--effort=fast", "--max-memory=1G", f"--group-ratio={folded}", "--resume", "-q")
    return subprocess.Popen([sys.executable, "-m", "onnxfold", str(source), str(folder / "out.onnx"), *options])


def files(folder: Path) -> dict[str, str]:
    """Digests of the target and of the data that it refers to, by name."""
    found = {}
    for path in sorted(folder.glob("out.onnx*")):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


if __name__ == "__main__":
    sys.exit(main())
