"""What networks that lie beside the project are for, and their true accuracy at it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from nets import net

from onnxfold.runtime.session import Session

LARGER = ("effnet_lite0", "minilm_l6", "ppocr4_rec")
LANGUAGE = "stories260K_dynamo"


@dataclass(frozen=True)
class Task:
    """A network: its file, inputs to calibrate on, its true accuracy in percent of `count` cases."""

    path: Path
    calibration: dict[str, Any]
    accuracy: Callable[[str], float]
    count: int


def task(data: Path, name: str, images: int) -> Task:
    """The network called `name`."""
    if name in LARGER:
        return _larger(data, name)
    if name == LANGUAGE:
        return _language(data)
    real = net(data, name, images)
    source = Session(real.path).inputs[0].name
    return Task(real.path, {source: real.unlabeled}, lambda path: real.top1(onnx.load(path)), len(real.images))


def evaluation(data: Path) -> Any:
    """What measures the larger networks."""
    spec = importlib.util.spec_from_file_location("evaluate", data / "larger" / "evaluate.py")
    assert spec is not None and spec.loader is not None
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    return theirs


def _larger(data: Path, name: str) -> Task:
    theirs = evaluation(data)
    path, known = data / "larger" / f"{name}.onnx", dict[str, Any]()
    which, count = {"effnet_lite0": (0, 272), "minilm_l6": (1, 300), "ppocr4_rec": (0, 300)}[name]

    def accuracy(version: str) -> float:
        if "before" not in known:
            known["before"] = getattr(theirs, name)(path, None)[0]
        said = getattr(theirs, name)(Path(version), known["before"])[1]
        return percent(said, which)

    return Task(path, theirs.calibration(name), accuracy, count)


def percent(said: str, which: int) -> float:
    """The number before a per cent sign in a line of larger/evaluate.py, the first or the second one ("cosine" has
    none)."""
    found = [float(part.split()[-1]) for part in said.split("%")[:-1]]
    return found[min(which, len(found) - 1)]


def _language(data: Path) -> Task:
    path = data / "models" / f"{LANGUAGE}.onnx"
    calibrating, test = (
        np.load(data / "language" / f"stories_{part}.npz")["input_ids"].astype(np.int64) for part in ("calib", "test")
    )
    source = Session(path).inputs[0].name

    def accuracy(version: str) -> float:
        session = Session(version)
        hits = [session.run({source: row[None, :-1]})[0][0].argmax(-1) == row[1:] for row in test]
        return 100 * float(np.mean(hits))

    return Task(path, {source: calibrating[:, :-1]}, accuracy, test.size - len(test))
