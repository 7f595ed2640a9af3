"""A child process that reads models, one after the other: a path, and fold or inspect, on a line of standard input, a
line of JSON on standard output for each. It may die of any of them: the parent (runner.py) notices."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper

import onnxfold
from onnxfold.errors import OnnxFoldError, ValidationError
from onnxfold.model.model import load
from onnxfold.model.save import inline
from onnxfold.runtime.probe_inputs import index_limits, probe
from onnxfold.runtime.session import Session

MEMORY = 6 << 30  # bytes of private memory: a wish beyond that is refused, and not granted at the machine's cost

LARGE = 1e9  # what no trained weight reaches


def read(path: str, fold: bool) -> dict[str, Any]:
    """What onnxfold makes of a file: done, refused (and by which error), or what it should never be."""
    try:
        onnxfold.inspect(path)
        if not fold:
            return {"end": "inspected"}
        result = onnxfold.fold(path, ratio=0.25, round_to=1, effort="fast", latency=False)
    except ValidationError as error:
        return {"end": "invalid" if runs(path) else "refused", "error": "ValidationError", "text": str(error)}
    except OnnxFoldError as error:
        return {"end": "refused", "error": type(error).__name__, "text": str(error)}
    except BaseException as error:  # whatever it is, it is the finding
        return {"end": "raised", "error": type(error).__name__, "text": traceback.format_exc()}
    with contextlib.suppress(Exception):
        if runs(path) and not runs(result):
            return {"end": "broken", "error": "", "text": "the folded model does not run, the original does"}
    return {"end": "folded"}


def runs(model: Any) -> bool:
    """Whether a model has sane weights and runs on random inputs, with finite outputs."""
    original = load(model) if isinstance(model, str) else model._source
    proto = original.proto if isinstance(model, str) else model.model
    try:
        complete = inline(proto, original.folder)
        if not all(sane(numpy_helper.to_array(tensor)) for tensor in complete.graph.initializer):
            return False
        session = Session(complete.SerializeToString())
        held = {t.name for t in proto.graph.initializer}
        specs = [spec for spec in session.inputs if spec.name not in held]
        found = session.run(probe(specs, batch=2, limits=index_limits(original.graph)))
    except Exception:  # onnxruntime's exceptions share no base class
        return False
    return all(np.isfinite(x).all() for x in found if isinstance(x, np.ndarray) and x.dtype.kind == "f")


def sane(weight: Any) -> bool:
    """Random bytes as floats come near the largest there is; their sums are infinite, and that is nobody's fault."""
    return weight.dtype.kind != "f" or not weight.size or bool(np.abs(weight).max() < LARGE)


def peak() -> int:
    """The most memory that this process ever had, in MB. (`ru_maxrss` begins with what the parent had.)"""
    try:
        status = Path("/proc/self/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that a library prints is taken for an answer
    for line in sys.stdin:
        path, how = line.rstrip("\n").split("\t")
        found = read(path, how == "fold")
        found["memory"] = peak()
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
