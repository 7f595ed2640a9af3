"""The files that a run reads, so that it writes over none of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from ..model.external_data import external_tensors
from ..model.files import Read
from ..model.model import Source
from .images import SUFFIXES
from .sources import ARRAYS

MODEL, WEIGHTS, SAMPLES, METRIC = "the model", "the weights of the input", "calibration data", "the metric"
_READ = (*ARRAYS, *SUFFIXES, ".pb")


class FilesRead:
    """(file, what it is) of the models, of the weights beside them, of the user's samples, and of their own measure.

    Nothing is looked at before it is asked for: a model is only parsed, and a folder only walked, where something would
    be written over.
    """

    def __init__(
        self, models: Sequence[Source], calibration: object = None, metric: object = None, more: Sequence[Read] = ()
    ) -> None:
        """`metric`: FILE.py:FUNCTION, or what is no file; `more`: other files, and what they are."""
        self._more = tuple(more)
        self._models = [Path(model) for model in models if not isinstance(model, ModelProto)]
        self._calibration = Path(calibration) if isinstance(calibration, str | os.PathLike) else None
        self._metric = Path(metric.rpartition(":")[0]) if isinstance(metric, str) else None

    def __iter__(self) -> Iterator[Read]:
        yield from ((path, MODEL) for path in self._models)
        yield from self._more
        if self._metric is not None:
            yield self._metric, METRIC
        if self._calibration is not None:
            yield from ((path, SAMPLES) for path in _samples(self._calibration))
        yield from ((path, WEIGHTS) for path in self._weights)

    @cached_property
    def _weights(self) -> tuple[Path, ...]:
        return tuple(file for path in self._models for file in _weights(path))


def _samples(path: Path) -> Iterator[Path]:
    """A file of samples, or all in a folder that may be read, also behind links to other folders."""
    if not path.is_dir():
        yield path
        return
    seen = set[tuple[int, int]]()
    for folder, below, files in os.walk(path, followlinks=True):
        state = os.stat(folder)
        if (state.st_dev, state.st_ino) in seen:
            below.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        yield from (Path(folder, name) for name in files if name.lower().endswith(_READ))


def _weights(path: Path) -> set[Path]:
    """The files of external data that a model names. A model that cannot be read is refused when it is loaded."""
    try:
        if not path.is_file():
            return set()
        proto = ModelProto.FromString(path.read_bytes())
        names = {e.value for tensor in external_tensors(proto) for e in tensor.external_data if e.key == "location"}
    except (OSError, DecodeError, UnicodeDecodeError):
        return set()
    return {path.absolute().parent / name for name in names if "\0" not in name}
