"""Token ids for language models: text that the model itself writes, or else sentences of words by Zipf's law.

Text sampled from a language model stands in for its data better than tokens drawn at random do (Liu et al., LLM-QAT,
arXiv 2305.17888; Williams and Aletras, arXiv 2410.17170). It takes a causal model, one pass per token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...analysis.costs import costs, step_seconds
from ...errors import ExecutionError
from ...model.graph import Graph
from ...model.model import Model
from ...runtime import probe_inputs
from ...runtime.batching import fixed
from ...runtime.session import InputSpec, Session
from ...runtime.token_scores import word_scores
from ..origin import Origin
from .sentences import sentence_feeds

_CAUSAL_RTOL = 1e-3  # of the scores: a later token changes earlier ones by rounding only
_SCORES = 1 << 24  # numbers that one pass may give
_FORWARD = 1 / 3  # of a step, which is two versions forward and one back
LENGTH = 64  # tokens, where that is open and there is time: in texts of 16, attention heads seem to do little

Array = NDArray[Any]


class _SilentError(Exception):
    """Why a model writes no text."""


def token_feeds(
    model: Model,
    specs: Sequence[InputSpec],
    count: int,
    seed: int,
    shapes: Mapping[str, Sequence[int]],
    provider: str,
    seconds: float = math.inf,
) -> tuple[dict[str, Array], Origin, str] | None:
    """Feeds of `count` samples, their origin and a note ('': none), for a model that takes only token ids, masks and
    segments; None for another.

    Where the model does not write, or would take more than `seconds`, going by its size, they are sentences of half of
    its words (`sentences.py`), so that the other half can judge.
    """
    limits = probe_inputs.index_limits(model.graph)
    plain = [s for s in specs if s.name not in limits and (s.dtype is None or np.dtype(s.dtype).kind not in "iub")]
    if plain or max(limits.values(), default=0) < probe_inputs.VOCABULARY:
        return None
    note, tried = "", list[dict[str, Array]]()
    for sizes in text_shapes(specs, shapes):
        feeds = probe_inputs.tokens(specs, limits, batch=count, seed=seed, shapes=sizes)
        tried.append(feeds)
        output = _next_words(model.graph, feeds, limits)
        if output is None:
            continue
        name, scores = output
        try:
            session = Session.of(model, provider)
            one = {n: (1, *x.shape[1:]) for n, x in feeds.items()}
            expected = count * feeds[name].shape[1] * _FORWARD * step_seconds(model, costs(model, one))
            if expected > seconds:
                raise _SilentError(f"that would take {expected:.0f} seconds")
            writer = _Writer(session, name, session.outputs.index(scores), limits[name])
            return {**feeds, name: writer.text(feeds, np.random.default_rng([seed, 1]))}, Origin.GENERATED_TEXT, ""
        except (_SilentError, ExecutionError) as error:  # a fold will find out what is wrong
            note = f"the model cannot generate text: {' '.join(str(error).split())[:200]}"
    feeds = next((one for one in tried if _runs(model, one, provider)), tried[-1])
    sizes = {name: x.shape for name, x in feeds.items()}
    rng = np.random.default_rng([seed, 1])
    return {**feeds, **sentence_feeds(model, specs, limits, sizes, rng, 0)}, Origin.SENTENCES, note


def _runs(model: Model, feeds: Mapping[str, Array], provider: str) -> bool:
    """Whether one sample of `feeds` is not too long for the model."""
    try:
        Session.of(model, provider).run({name: x[:1] if x.ndim else x for name, x in feeds.items()})
    except ExecutionError:
        return False
    return True


def text_shapes(specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]]) -> list[Mapping[str, Sequence[int]]]:
    """The shapes to try: long texts where all inputs [N, T] leave one length open, then what is usual."""
    open_ = [s for s in specs if len(s.shape) == 2 and not fixed(s.shape[1]) and s.name not in shapes]
    if len({s.shape[1] for s in open_}) != 1:
        return [shapes]
    return [{**shapes, **{s.name: (1, LENGTH) for s in open_}}, shapes]


def _next_words(graph: Graph, feeds: Mapping[str, Array], limits: Mapping[str, int]) -> tuple[str, str] | None:
    """The input of tokens [N, T], and the output [N, T, vocabulary] that may score what comes next; None without."""
    scores = {words: output for output, words in word_scores(graph).items()}
    for name, limit in limits.items():
        if limit in scores and name in feeds and feeds[name].ndim == 2 and feeds[name].shape[1] > 1:
            return name, scores[limit]
    return None


class _Writer:
    """Draws tokens of input `name` from what output number `at` makes of those before."""

    def __init__(self, session: Session, name: str, at: int, vocabulary: int) -> None:
        self._session, self._name, self._at, self._vocabulary = session, name, at, vocabulary

    def text(self, feeds: Mapping[str, Array], rng: np.random.Generator) -> Array:
        """[N, T] the first tokens of `feeds` and what follows. Raises _SilentError where that cannot be."""
        found = feeds[self._name].copy()
        count, length = found.shape
        step = max(1, _SCORES // (length * self._vocabulary))
        self._check(found[:step], feeds)
        for start in range(0, count, step):
            part = found[start : start + step]
            for place in range(1, length):
                scores = self._scores(part, feeds)[:, place - 1]
                noise = rng.gumbel(size=scores.shape)  # the largest of scores + noise is a draw from their softmax
                part[:, place] = np.argmax(scores + noise, axis=1)
        return found

    def _check(self, some: Array, feeds: Mapping[str, Array]) -> None:
        """Raise _SilentError unless the scores of a place depend on no token behind it."""
        changed = some.copy()
        changed[:, -1] = (changed[:, -1] + 1) % self._vocabulary
        one, other = (self._scores(x, feeds).astype(np.float64) for x in (some, changed))
        if one.shape[:2] != some.shape or not np.isfinite(one).all():
            raise _SilentError("its outputs are not next-token scores")
        if np.abs(one - other)[:, :-1].max() > _CAUSAL_RTOL * np.abs(one).max():
            raise _SilentError("it uses later tokens")

    def _scores(self, words: Array, feeds: Mapping[str, Array]) -> Array:
        others = {name: x[: len(words)] if x.ndim else x for name, x in feeds.items()}
        return np.asarray(self._session.run({**others, self._name: words})[self._at])
