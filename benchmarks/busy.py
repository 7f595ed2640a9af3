"""Whether a busy machine changes a result: models are folded alone, and beside processes that keep all cores busy.

    python benchmarks/busy.py [--models FILE ...] [--hogs 2]

Every model is folded twice by `--effort balanced` and the default budget, from an empty cache each time. Exit code 1 if
the files differ.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

MODELS = Path(__file__).resolve().parents[1] / "models"
THREE = ("digits_vgg", "digits_resnet_bn", "digits_mobilenet")


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """So many processes that compute without end."""
    found = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in found:
            one.kill()
            one.wait()


def folded(model: Path) -> tuple[str, float]:
    """(hash of the file that a fold writes, seconds)."""
    with tempfile.TemporaryDirectory() as folder:
        target, begin = Path(folder) / "out.onnx", time.perf_counter()
        environment = {**os.environ, "XDG_CACHE_HOME": folder}
        command = [sys.executable, "-m", "onnxfold", str(model), str(target), "--effort", "balanced", "-q"]
        subprocess.run(command, check=True, env=environment)
        return hashlib.sha256(target.read_bytes()).hexdigest(), time.perf_counter() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", default=[MODELS / f"{name}.onnx" for name in THREE])
    parser.add_argument("--hogs", type=int, default=2)
    asked = parser.parse_args()
    differ = 0
    for model in asked.models:
        alone, seconds = folded(model)
        with hogs(asked.hogs):
            beside, longer = folded(model)
        differ += alone != beside
        same = "the same" if alone == beside else f"another file ({beside[:12]})"
        print(f"{model.stem:24} {alone[:12]} in {seconds:.0f} s; beside {asked.hogs} hogs {same}, in {longer:.0f} s")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
