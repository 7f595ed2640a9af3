"""Trials: what a candidate does to the outputs on probe inputs, for decisions that weights alone cannot settle."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..errors import ExecutionError, RequestError
from ..model.kv_cache import Cache
from ..model.model import Model
from ..runtime.outputs import as_array, raw_outputs, with_outputs
from ..runtime.session import Feeds, Session
from ..runtime.shared_prefix import SharedPrefix
from ..runtime.token_scores import by_probability, word_scores
from .metrics import agreement, relative_l2


class Evaluator:
    """The original's outputs on the batches that `feeds` makes, and the error of candidates (on the CPU).

    Nothing runs before the first question, and nothing at all unless the model `fits` into memory. Outputs in `caches`
    are not looked at: candidates may have fewer heads in them."""

    def __init__(
        self,
        model: Model,
        feeds: Callable[[Session], Sequence[Feeds]],
        fits: bool = True,
        caches: Sequence[Cache] = (),
    ) -> None:
        self._model, self._make, self._fits = model, feeds, fits
        presents = {cache.present for cache in caches}
        self._names = raw_outputs(model.graph, presents)
        self._words = word_scores(model.graph)

    @cached_property
    def _feeds(self) -> Sequence[Feeds]:
        return self._make(self._session(self._model.proto))

    @cached_property
    def _expected(self) -> list[NDArray[Any]]:
        return self.outputs(self._model.proto)

    @cached_property
    def possible(self) -> bool:
        """Whether onnxruntime can run the original at all (found out when first asked)."""
        try:
            return (
                self._fits
                and bool(self._expected)
                and all(np.isfinite(x).all() for x in self._expected if x.dtype.kind == "f")
            )
        except (ExecutionError, RequestError):  # the verdict will give the reason
            return False

    @cached_property
    def _prefix(self) -> SharedPrefix:
        return SharedPrefix(self._model, self._feeds)

    def outputs(self, proto: ModelProto, changed: Container[str] | None = None) -> list[NDArray[Any]]:
        """The raw outputs of a version of the model, those of all batches in one flat array each."""
        return [np.concatenate([x.ravel() for x in one]) for one in zip(*self._runs(proto, changed), strict=True)]

    def _runs(self, proto: ModelProto, changed: Container[str] | None = None) -> list[list[NDArray[Any]]]:
        """The raw outputs of every batch."""
        if changed is not None:
            _, walk = self._prefix.begin(proto, changed)
            found = walk.advance(len(proto.graph.node), self._names)
            if all(name in one for one in found for name in self._names):
                return [[as_array(name, one[name]) for name in self._names] for one in found]
        session = self._session(proto)
        runs = (session.run(session.fitted(feeds)) for feeds in self._feeds)
        return [[as_array(name, x) for name, x in zip(self._names, run, strict=True)] for run in runs]

    def error(self, proto: ModelProto, changed: Container[str] | None = None) -> float:
        """The largest relative L2 error over the raw outputs; inf where they are not finite or cannot be had.

        With `changed`, tensors that differ from the original, only what comes after them is run: for many versions.
        """
        try:
            found = self.outputs(proto, changed)
        except (ExecutionError, RequestError):  # the verdict will say what is wrong
            return float("inf")
        return self._worst(found, {})

    def distance(self, proto: ModelProto, changed: Container[str] | None = None) -> float:
        """As `error`, but scores of words count by how probable the words are (scores.py): to choose by."""
        try:
            found = self.outputs(proto, changed)
        except (ExecutionError, RequestError):  # as in `error`
            return float("inf")
        return self._worst(found, self._words)

    def _worst(self, found: Sequence[NDArray[Any]], words: Mapping[str, int]) -> float:
        errors = []
        for name, a, b in zip(self._names, self._expected, found, strict=True):
            if a.dtype.kind == "f":
                pair = by_probability(a, b, words[name]) if name in words and a.shape == b.shape else (a, b)
                errors.append(relative_l2(*pair))
        worst = max(errors, default=0.0)
        return worst if np.isfinite(worst) else float("inf")

    def agreement(self, proto: ModelProto) -> float | None:
        """The share of the samples whose largest output stays the same one, for the worst output with classes; 0..1.

        None where no output has classes, or there is but one sample (see `metrics.agreement`).
        """
        before, after = (self._runs(version) for version in (self._model.proto, proto))
        outputs = zip(zip(*before, strict=True), zip(*after, strict=True), strict=True)
        shares = [agreement(expected, found) for expected, found in outputs]
        return min((share for share in shares if share is not None), default=None)

    def collapse(self, proto: ModelProto) -> float:
        """How far the spread of the raw outputs is from the original: the largest |log(std / original std)|."""
        try:
            found = self.outputs(proto)
        except (ExecutionError, RequestError):  # as in `error`
            return float("inf")
        worst = 0.0
        for a, b in zip(self._expected, found, strict=True):
            if a.dtype.kind == "f" and a.size > 1:
                if not np.isfinite(b).all():
                    return float("inf")
                before, after = float(a.std(dtype=np.float64)), float(b.std(dtype=np.float64))
                if before > 0:
                    worst = max(worst, abs(np.log(after / before)) if after > 0 else float("inf"))
        return worst

    def _session(self, proto: ModelProto) -> Session:
        shown = with_outputs(proto, self._names, self._model.graph)
        return Session.of_version(shown, self._model.folder)


def required(share: float | None) -> float:
    """An agreement that a budget asks for. Raises RequestError where there is none."""
    if share is None:
        raise RequestError(
            "`min_agreement` has nothing to measure: it needs an output with a score for every class, and more than "
            "one sample. Give `calibration` with more samples, or another budget, for example `max_error=0.1`"
        )
    return share
