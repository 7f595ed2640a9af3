"""Texts without what fills them up: positions that a mask hides are no data, and their outputs are nobody's.

Batches of texts are as long as the longest, and attention keeps what fills up the others from all words. A fold that is
fitted, planned and judged on such positions too looks after what nobody reads: half of all positions of 128 sentences
of 14 to 64 words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ExecutionError
from ..runtime.batching import Batching, batches, fixed
from ..runtime.session import Feeds, InputSpec, Session

GRAIN = 16  # words: texts of about one length stay together (few large batches cost less than many small ones)
_GOLDEN = (5**0.5 - 1) / 2
_SAME = 1e-3  # of the largest output: what a text may change by when it is cut to its own length

Array = NDArray[Any]


def mask_of(feeds: Sequence[Feeds], session: Session) -> str:
    """The input [samples, words] that is 1 for the words of a text and 0 for what fills it up at its end; '' where
    there is none, nothing is filled up, or what fills up is not hidden from the words.

    All inputs must be of that shape, and the model must take any number of samples and of words.
    """
    specs = session.inputs
    open_axes = {s.shape[1] for s in specs if len(s.shape) == 2 and not fixed(s.shape[1])}
    if not feeds or len(open_axes) != 1 or any(len(s.shape) != 2 or fixed(s.shape[1]) for s in specs):
        return ""
    form = Batching.of(specs)
    if form.size is not None or form.names != {s.name for s in specs}:
        return ""
    if any(len({x.shape for x in feed.values()}) != 1 for feed in feeds):
        return ""
    found = [s.name for s in specs if _fills_up([feed[s.name] for feed in feeds])]
    if len(found) != 1 or len(specs) < 2:
        return ""
    filled = next(feed for feed in feeds if not feed[found[0]].all())
    return found[0] if _hides(session, filled, found[0]) else ""


def without_padding(feeds: Sequence[Feeds], specs: Sequence[InputSpec], mask: str, size: int) -> tuple[Feeds, ...]:
    """The same texts in batches of up to `size`, each cut to its own length but for less than `GRAIN` words. Batches of
    all lengths follow each other, since who takes only the first ones should get some of each."""
    single = [{name: x[i : i + 1] for name, x in feed.items()} for feed in feeds for i in range(len(feed[mask]))]
    cut = list[Feeds]()
    for feed in single:
        most = feed[mask].shape[1]
        length = min(most, -(-int(feed[mask].sum()) // GRAIN) * GRAIN)
        cut.append({name: np.ascontiguousarray(x[:, :length]) for name, x in feed.items()})
    rising = list(batches(sorted(cut, key=lambda feed: feed[mask].shape[1]), specs, size))
    return tuple(rising[i] for i in sorted(range(len(rising)), key=lambda i: i * _GOLDEN % 1))


def padded(feeds: Sequence[Feeds]) -> list[Feeds]:
    """Texts [samples, words], filled up with zeros to the longest of all."""
    longest = max(x.shape[1] for feed in feeds for x in feed.values())
    return [
        {name: np.pad(x, [(0, 0), (0, longest - x.shape[1])]) for name, x in feed.items()} for feed in feeds
    ]  # fmt: skip


def _fills_up(masks: Sequence[Array]) -> bool:
    """Whether every row is some ones, then zeros, and there are zeros."""
    if not all(np.isin(x, (0, 1)).all() and x[:, 0].all() for x in masks):
        return False
    falling = all((np.diff(x.astype(np.int8), axis=1) <= 0).all() for x in masks)
    return falling and not all(x.all() for x in masks)


def _hides(session: Session, feed: Feeds, mask: str) -> bool:
    """Whether the outputs of a text are the same when it is cut to its own length."""
    row = int(np.argmin(feed[mask].sum(axis=1)))
    length = int(feed[mask][row].sum())
    whole: Mapping[str, Array] = {name: x[row : row + 1] for name, x in feed.items()}
    try:
        before = session.run(whole)
        after = session.run({name: np.ascontiguousarray(x[:, :length]) for name, x in whole.items()})
    except ExecutionError:
        return False
    return all(_alike(np.asarray(x), np.asarray(y), length) for x, y in zip(before, after, strict=True))


def _alike(whole: Array, cut: Array, length: int) -> bool:
    """Whether an output is the same, for all words that both have."""
    if whole.dtype.kind != "f" or whole.ndim != cut.ndim:
        return False
    same = whole if whole.shape == cut.shape else whole[:, :length] if whole.ndim > 1 else whole
    if same.shape != cut.shape:
        return False
    largest = max(1e-30, float(np.abs(cut).max(initial=0.0)))
    return bool(np.abs(same - cut).max(initial=0.0) <= _SAME * largest)
