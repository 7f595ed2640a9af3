"""Trials: what a candidate does to the outputs on probe inputs, for decisions that weights alone cannot settle."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..errors import ExecutionError, RequestError
from ..frozen import read_only
from ..model.constants import FLOATS
from ..model.kv_cache import Cache
from ..model.model import Model
from ..model.shapes.nominal import stretchable
from ..progress import steps
from ..runtime.batching import Batching
from ..runtime.outputs import ComparedTensors, as_array, with_outputs
from ..runtime.session import Feeds, Session, brief
from ..runtime.shared_prefix import SharedPrefix
from ..runtime.token_scores import by_probability, word_scores
from .metrics import agreement, component_error, relative_l2
from .moments import Along, MomentsAlong

_ALIKE = 0.3, 5.0  # of how far outputs move on inputs that are like the data (photographs: 0.4 to 1.2)
Runs = list[list[NDArray[Any]]]  # of every batch, what is compared
Batches = Sequence[NDArray[Any]]  # of one tensor
Pairs = Mapping[str, tuple[Batches, Batches]]  # what is compared, of the original and of a version, by name


@dataclass(frozen=True, eq=False)
class Reference:
    """Inputs on which only the original is run, to tell how far its outputs move.

    Attributes:
        alike: more of the very kind that judges: what was fitted on, where that is the user's data too. Errors are
            measured on the others only, but in units of all (`component_error`).
        known: made to be like the data that the model knows; outputs may move more there than on what judges.
    """

    alike: Sequence[Feeds] = field(default=(), repr=False)
    known: Sequence[Feeds] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        read_only(self)


NOTHING_ELSE = Reference()


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
        common: Model | None = None,
        reference: Reference = NOTHING_ELSE,
    ) -> None:
        """`common`: only what this other model has too is looked at, for models that are not versions of each other.

        `reference`: on what else the original is run, to tell how far its outputs move."""
        self._model, self._make, self._fits, self._reference = model, feeds, fits, reference
        presents = {cache.present for cache in caches}
        self._names = ComparedTensors.of(model, presents).tensors
        if common is not None and not set(self._names) <= set(ComparedTensors.of(common, presents).tensors):
            self._names = tuple(n for n in model.graph.outputs if model.graph.tensor(n).dtype in FLOATS)
        self._words = word_scores(model.graph)

    @cached_property
    def _original(self) -> tuple[Sequence[Feeds], Runs, Batching]:
        """The batches that everything is measured on, what the original says of them, and how samples lie in them."""
        session = self._session(self._model.proto)
        feeds = self._make(session)
        return feeds, self._of(session, feeds), Batching.of(session.inputs)

    @property
    def _feeds(self) -> Sequence[Feeds]:
        return self._original[0]

    @property
    def _expected(self) -> Runs:
        return self._original[1]

    @cached_property
    def _seen(self) -> dict[str, Batches]:
        """What the original says of the inputs that it knows, by tensor."""
        if not self._reference.known:
            return {}
        runs = self._of(self._session(self._model.proto), self._reference.known)
        return dict(zip(self._names, zip(*runs, strict=True), strict=True))

    @cached_property
    def _alike(self) -> dict[str, Along]:
        """How far the original moves on more inputs like those that judge, by tensor."""
        found = {name: MomentsAlong() for name in self._names}
        if self._reference.alike:
            session = self._session(self._model.proto)
            for feeds in steps("running the model", self._reference.alike):
                for name, x in zip(self._names, self._run(session, feeds), strict=True):
                    found[name].add(x)
        return {name: one.known for name, one in found.items()}

    @property
    def compares(self) -> bool:
        """Whether any output says how far a version is: floats, or what is chosen by floats."""
        return bool(self._names)

    @property
    def possible(self) -> bool:
        """Whether anything can be measured (found out when first asked)."""
        return not self.obstacle

    @cached_property
    def obstacle(self) -> str:
        """Why nothing can be measured, in words; '' if it can."""
        if not self.compares:
            return "none of the outputs can be compared (none is a float, or selected by floats in the main graph)"
        if not self._fits:
            return "this model is too large to run in the available memory"
        try:
            expected, _ = self._expected, self._alike
        except (ExecutionError, RequestError) as error:
            other = (
                " (`input_shapes` sets other shapes)"
                if stretchable(self._model.graph, self._model.constants, {})
                else ""
            )
            return f"this model cannot be measured on the available inputs{other}: {brief(error)}"
        if not expected:
            return "there are no inputs to measure on"
        if not any(x.size for run in expected for x in run):
            return "no output of this model can be compared (all are empty)"
        for name, batches in zip(self._names, zip(*expected, strict=True), strict=True):
            values = _flat(batches)
            if values.dtype.kind == "f" and values.size and not np.isfinite(values).any():
                return f"this model cannot be measured: '{name}' is NaN or infinite on the available inputs"
        return ""

    @cached_property
    def strange(self) -> bool:
        """Whether an output moves far less or far more than on the inputs that were `seen`.

        Then these here are not what the model knows (images in a range that no convention has, say), and what they show
        says little."""
        expected = dict(zip(self._names, zip(*self._expected, strict=True), strict=True))
        pairs = [(_movement(expected[name]), _movement(seen)) for name, seen in self._seen.items()]
        return not all(_ALIKE[0] * there <= here <= _ALIKE[1] * there for here, there in pairs)

    @property
    def samples(self) -> int:
        """How many samples everything is measured on."""
        return samples_in(self._feeds, self._original[2])

    @cached_property
    def _lengths(self) -> list[int]:
        """The length of every batch."""
        return [max(_lengths(feeds), default=1) for feeds in self._feeds]

    @property
    def inputs(self) -> Sequence[Feeds]:
        """The batches that everything is measured on."""
        return self._feeds

    @cached_property
    def _prefix(self) -> SharedPrefix:
        return SharedPrefix(self._model, self._feeds)

    def outputs(self, proto: ModelProto, changed: Container[str] | None = None) -> list[NDArray[Any]]:
        """What is compared, of a version of the model: of all batches in one flat array each."""
        return [_flat(batches) for batches in zip(*self._runs(proto, changed), strict=True)]

    def _runs(self, proto: ModelProto, changed: Container[str] | None = None) -> Runs:
        """What is compared, of every batch."""
        if changed is not None:
            _, walk = self._prefix.begin(proto, changed)
            found = walk.advance(len(proto.graph.node), self._names)
            if all(name in one for one in found for name in self._names):
                return [[as_array(name, one[name]) for name in self._names] for one in found]
        return self._of(self._session(proto), self._feeds)

    def _of(self, session: Session, batches: Sequence[Feeds]) -> Runs:
        """What a session says of every batch."""
        return [self._run(session, feeds) for feeds in steps("running the model", batches)]

    def _run(self, session: Session, feeds: Feeds) -> list[NDArray[Any]]:
        run = session.run(session.fitted(feeds))
        return [as_array(name, x) for name, x in zip(self._names, run, strict=True)]

    def error(self, proto: ModelProto, changed: Container[str] | None = None) -> float:
        """The largest error over what is compared (`component_error`); inf where it is not finite or cannot be had.

        With `changed`, tensors that differ from the original, only what comes after them is run: for many versions.
        """
        pairs = self.beside(proto, changed)
        if pairs is None:
            return float("inf")
        return max((self._error(name, *pair) for name, pair in pairs.items()), default=0.0)

    def deviations(self, pairs: Pairs | None) -> dict[str, tuple[float, float]]:
        """(`component_error`, `relative_l2`) of every tensor that is compared, by name; inf where it cannot be had."""
        if pairs is None:
            return dict.fromkeys(self._names, (float("inf"), float("inf")))
        return {name: (self._error(name, a, b), relative_l2(_flat(a), _flat(b))) for name, (a, b) in pairs.items()}

    def _error(self, name: str, expected: Batches, found: Batches) -> float:
        return component_error(expected, found, self._seen.get(name, ()), self._lengths, self._alike.get(name, {}))

    def beside(self, proto: ModelProto, changed: Container[str] | None = None) -> Pairs | None:
        """What is compared of the original and of a version, by name; None where the version does not run."""
        try:
            found = self._runs(proto, changed)
        except (ExecutionError, RequestError):  # the verdict will say what is wrong
            return None
        sides = zip(zip(*self._expected, strict=True), zip(*found, strict=True), strict=True)
        return dict(zip(self._names, sides, strict=True))

    def distance(self, proto: ModelProto, changed: Container[str] | None = None) -> float:
        """To choose by: the largest relative L2 error; scores of words count by how probable the words are
        (token_scores.py). It has less noise than `error`, and cannot tell what a small output is worth."""
        try:
            found = self.outputs(proto, changed)
        except (ExecutionError, RequestError):  # as in `error`
            return float("inf")
        errors = []
        for name, batches, b in zip(self._names, zip(*self._expected, strict=True), found, strict=True):
            a, words = _flat(batches), self._words.get(name)
            likely = words is not None and a.shape == b.shape and np.isfinite(a).all()
            errors.append(relative_l2(*(by_probability(a, b, words) if words is not None and likely else (a, b))))
        worst = max(errors, default=0.0)
        return worst if np.isfinite(worst) else float("inf")

    def agreement(self, proto: ModelProto) -> float | None:
        """The share of the samples whose largest output stays the same one, for the worst output with classes; 0..1.

        None where no output has classes, or there is but one sample (see `metrics.agreement`).
        """
        before, after = self._expected, self._runs(proto)
        return least_agreement(list(zip(zip(*before, strict=True), zip(*after, strict=True), strict=True)))

    def collapse(self, proto: ModelProto) -> float:
        """How far the spread of the raw outputs is from the original: the largest |log(std / original std)|."""
        try:
            found = self.outputs(proto)
        except (ExecutionError, RequestError):  # as in `error`
            return float("inf")
        worst = 0.0
        for batches, b in zip(zip(*self._expected, strict=True), found, strict=True):
            a = _flat(batches)
            if a.dtype.kind == "f" and a.size > 1:
                there = np.isfinite(a)
                if a.shape != b.shape or not np.isfinite(b[there]).all():
                    return float("inf")
                a, b = a[there], b[there]
                before, after = float(a.std(dtype=np.float64)), float(b.std(dtype=np.float64))
                if before > 0:
                    worst = max(worst, abs(np.log(after / before)) if after > 0 else float("inf"))
        return worst

    def _session(self, proto: ModelProto) -> Session:
        shown = with_outputs(proto, self._names, self._model.graph)
        return Session.of_version(shown, self._model.folder)


def samples_in(batches: Sequence[Feeds], form: Batching) -> int:
    """How many samples there are in batches. Inputs of one length have one along it; else `form` says which do."""
    return sum(form.length(one) if len(_lengths(one)) > 1 else max(_lengths(one), default=1) for one in batches)


def _lengths(feeds: Feeds) -> set[int]:
    """The lengths that inputs have along their first axis."""
    return {len(x) for x in feeds.values() if np.ndim(x)}


def least_agreement(outputs: Sequence[tuple[Batches, Batches]]) -> float | None:
    """The share of the samples that keep their top class, in the worst output that has classes; None where none has."""
    shares = [agreement(expected, found) for expected, found in outputs]
    return min((share for share in shares if share is not None), default=None)


def _movement(batches: Batches) -> float:
    """How far the values of one output move around their means over the samples, root mean square; 0 where samples
    cannot be told apart."""
    if len({x.shape[1:] for x in batches}) != 1 or not all(x.ndim for x in batches):
        return 0.0
    rows = np.concatenate([x.reshape(len(x), -1) for x in batches]).astype(np.float64)
    finite = rows[:, np.isfinite(rows).all(axis=0)]
    return float(np.sqrt(finite.var(axis=0).mean())) if finite.size else 0.0


def _flat(batches: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate([x.ravel() for x in batches])


def required(share: float | None) -> float:
    """An agreement that a budget asks for. Raises RequestError where there is none."""
    if share is None:
        raise RequestError(
            "`min_agreement` has nothing to measure: it needs an output with one score per class, and more than "
            "one sample. Pass `calibration` with more samples, or choose another budget, for example `max_error=0.1`"
        )
    return share
