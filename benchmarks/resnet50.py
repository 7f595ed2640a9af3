"""Folding the ResNet-50 topology (25 M parameters) against onnxsim's L2 pruning of the same file, whole processes.

    python benchmarks/resnet50.py [--ratio 0.3] [--runs 3]

The file is the `onnx` package's light ResNet-50 with seeded random weights. Both tools run as fresh processes in turn;
wall time is the median, memory the largest peak of the process. Needs `pip install '.[bench]'`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

ONNXSIM = """
import sys, onnx, onnxsim
model = onnx.load(sys.argv[1])
simple, _ = onnxsim.simplify(model)  # fuses BatchNormalization: without it the pruning does nothing
pruned = onnxsim.apply_structured_pruning(simple, sparsity=float(sys.argv[3]))
onnx.save(pruned[0] if isinstance(pruned, tuple) else pruned, sys.argv[2])
"""


def resnet50(path: Path, seed: int = 0) -> None:
    """Write the light model's graph with He-initialized weights at opset 13 or later."""
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_resnet50.onnx"
    model = onnx.load(light)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    random = np.random.default_rng(seed)
    weights, nodes = [], []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            nodes.append(node)
            continue
        shape = tuple(int(d) for d in shapes.pop(node.input[0]))
        fan = max(1, int(np.prod(shape[1:])))
        values = random.standard_normal(shape) * np.sqrt(2 / fan) if len(shape) > 1 else random.uniform(0.5, 1.5, shape)
        weights.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    for node in nodes:
        if node.op_type == "BatchNormalization":  # small shifts and means, so that activations stay in range
            for tensor in weights:
                if tensor.name in (node.input[2], node.input[3]):
                    values = numpy_helper.to_array(tensor) - 1
                    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    kept = [t for t in model.graph.initializer if t.name in shapes]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *weights])
    known = {t.name for t in model.graph.initializer}
    inputs = [v for v in model.graph.input if v.name not in known and v.name.endswith("data_0")]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = 8
    model = onnx.version_converter.convert_version(model, 13)
    onnx.save(model, path)


def measured(command: list[str]) -> tuple[float, float]:
    """(wall seconds, peak memory in MB) of a process."""
    begin = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command[:4])} failed")
    return time.perf_counter() - begin, usage.ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratio", default="0.3")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--make", metavar="FILE", type=Path, help="only write the model")
    options = parser.parse_args()
    if options.make:
        resnet50(options.make)
        return
    with tempfile.TemporaryDirectory() as folder:
        source, folded, pruned = (Path(folder) / f"{name}.onnx" for name in ("resnet50", "folded", "pruned"))
        # in a process of its own: a child's peak memory counts what its parent held when it was started
        subprocess.run([sys.executable, __file__, "--make", str(source)], check=True)
        fold = [
            sys.executable,
            "-m",
            "onnxfold",
            str(source),
            str(folded),
            "--ratio",
            options.ratio,
            "--effort",
            "fast",
            "-q",
        ]
        sim = [sys.executable, "-c", ONNXSIM, str(source), str(pruned), options.ratio]
        times: dict[str, list[tuple[float, float]]] = {"onnxfold": [], "onnxsim": []}
        for _ in range(options.runs):
            times["onnxfold"].append(measured(fold))
            times["onnxsim"].append(measured(sim))
        print(f"{'':12}{'wall s':>9}{'peak MB':>9}{'file MB':>9}   (original {source.stat().st_size / 1e6:.1f} MB)")
        for name, result in (("onnxfold", folded), ("onnxsim", pruned)):
            wall, peak = statistics.median(t for t, _ in times[name]), max(m for _, m in times[name])
            print(f"{name:12}{wall:>9.2f}{peak:>9.0f}{result.stat().st_size / 1e6:>9.1f}")
        ratios = [a / b for (a, _), (b, _) in zip(times["onnxfold"], times["onnxsim"], strict=True)]
        print(f"onnxfold / onnxsim, pair by pair: median {statistics.median(ratios):.2f}x")


if __name__ == "__main__":
    main()
