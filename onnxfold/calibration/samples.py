"""The inputs that decisions are measured on: the user's own, synthetic ones, or random ones, in batches."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.costs import PER_ACTIVATION, activations, costs
from ..errors import ExecutionError
from ..frozen import read_only
from ..model.files import kind_of, write_bytes, writing
from ..model.model import Model
from ..options.choices import Effort
from ..options.parts import CalibrationOptions
from ..progress import Progress, silent
from ..runtime.batching import Batching, batches
from ..runtime.session import Feeds, InputSpec, Session, quickest
from .judge import Judge, JudgeSettings, independent_judge
from .origin import FIXED, Origin
from .padding import mask_of, padded, without_padding
from .processor import Known, resolved
from .reader import Calibration, read_calibration
from .scale import scale_warning
from .synthetic import cache
from .synthetic.image_ops import contact_sheet
from .synthetic.synthesize import Extent, Synthetic, synthesize

_log = logging.getLogger(__name__)
BATCH = 16
_HELD = 64  # samples of a batch that is held back: the verdict runs one
CHECK_SHARE = 8  # one batch in eight (one in all, from four up) is held back to measure on
MOST_SHARE = 4  # of the user's samples, up to one in four,
_WANTED = 32  # until there are so many: 16 of 128 say 10 % too much or too little, 32 do 7 %, and the fit is as good
_FEW = 3  # batches of which all serve for both


SYNTHETIC = {Effort.BALANCED: (512, 100), Effort.BEST: (512, 300)}  # samples and steps of deep inversion at most
_PLAIN_STEPS = 40  # without BatchNormalization: more of them fit the stand-ins for its statistics, not the data
_LEAST = 16  # samples, and steps
_SPREAD = 128  # samples that tell how far outputs move
_ENOUGH = 4  # of the user's own samples, held back: fewer give no check mark
_JUDGING = 128  # samples of another kind, to judge by: what is rare in fewer of them can be half of an error
_PICTURES = 2048  # at most: pictures of random shapes cost no descent, and small models are repaired better by more
_FEWEST_CROPS, _MOST_CROPS = 64, 256  # of photographs
_LOOKING = 8.0  # seconds that one run of the model on all pictures may take, about
SECONDS = {Effort.BALANCED: 60.0, Effort.BEST: 600.0}  # of descent that are meant, on two quiet cores


@dataclass(frozen=True, eq=False)
class Samples:
    """Feeds to fit on and a `judge` to measure by, each runnable as it is.

    `described` is for the user; `match` how well their statistics fit the model's own (None: unknown); `apart` whether
    the model takes no more than one feed at a time, whatever its inputs declare; `given_up` whether it turned out that
    nothing can be decided with them; `mask` names the input that is 1 for the words of a text, where texts were cut to
    their own lengths ('' else).
    """

    fit: tuple[Feeds, ...] = field(repr=False)
    judge: Judge
    origin: Origin
    described: str
    match: float | None = None
    notes: tuple[str, ...] = ()
    apart: bool = False
    given_up: bool = False
    mask: str = ""

    @property
    def check(self) -> tuple[Feeds, ...]:
        """What is measured on."""
        return self.judge.batches

    @property
    def spread(self) -> tuple[Feeds, ...]:
        """Some of what is fitted on, where that was made to be like the model's data: outputs move less on inputs of
        another kind. (Classes that were spread on purpose would make them move more.)"""
        if self.origin not in (Origin.BN_STATISTICS, Origin.CONV_PRIOR, Origin.GENERATED_TEXT, *FIXED):
            return ()
        taken = list[Feeds]()
        for feed in self.fit:
            if sample_count(taken) >= _SPREAD:
                break
            taken.append(feed)
        return tuple(taken)

    @property
    def alike(self) -> tuple[Feeds, ...]:
        """The user's samples that are fitted on: the original may be run on them to tell how far its outputs move,
        while errors are measured on those held back alone."""
        if not self.own:
            return ()
        return _others(self.fit, self.check)

    @property
    def out_of_domain(self) -> bool:
        """Whether they come from other data than the model's own: photographs show few of the classes it knows, and
        lines of letters few of the characters."""
        return self.origin in (Origin.PHOTOGRAPHS, Origin.LINES)

    @property
    def own(self) -> bool:
        """Whether they are the user's, and not made."""
        return self.origin is Origin.OWN

    @property
    def trusted(self) -> bool:
        """Whether consumers may be refitted on them."""
        return self.origin.trusted and not self.given_up

    @property
    def faithful(self) -> bool:
        """Whether they also tell which channels matter."""
        return self.origin.faithful

    def __post_init__(self) -> None:
        read_only(self)


UNUSED = "`preprocess` is not used"


def warn_of_preprocess(asked: CalibrationOptions) -> None:
    """Say where `preprocess` has nothing to do, because no data is given."""
    if asked.preprocess is not None and asked.data is None:
        _log.warning("%s: it is for images in `calibration`, and none is given", UNUSED)


def sample_count(batches: Sequence[Feeds]) -> int:
    """How many samples there are in batches."""
    return sum(max((len(x) for x in feeds.values() if np.ndim(x)), default=1) for feeds in batches)


def _others(feeds: Sequence[Feeds], known: Sequence[Feeds]) -> tuple[Feeds, ...]:
    """Those of `feeds` that are none of the `known` ones: frozen views of the same arrays are the same feed."""
    held = {_place(feed) for feed in known}
    return tuple(feed for feed in feeds if _place(feed) not in held)


def _place(feed: Feeds) -> frozenset[tuple[str, int]]:
    """Where the arrays of a feed lie in memory."""
    return frozenset((name, x.ctypes.data) for name, x in feed.items())


def _different(feeds: Sequence[Feeds]) -> int:
    """How many samples differ from each other: copies of one do not show how far outputs move."""
    found = set[tuple[bytes, ...]]()
    for one in feeds:
        arrays, count = [np.asarray(x) for x in one.values()], sample_count([one])
        for i in range(count):
            found.add(tuple((x[i] if x.ndim and len(x) == count else x).tobytes() for x in arrays))
    return len(found)


def calibration_samples(
    model: Model,
    source: object,
    count: int,
    preprocess: Known,
    input_shapes: Mapping[str, Sequence[int]] | None,
    max_memory: int | None = None,
) -> Samples:
    """The user's own data. Raises RequestError where it does not fit the model, or into `max_memory` bytes."""
    session = Session.of(model)
    specs = session.inputs
    found = read_calibration(
        source, specs, samples=count, preprocess=resolved(preprocess, model.path), input_shapes=input_shapes,
        max_memory=max_memory,
    )  # fmt: skip
    unused = "" if preprocess is None or found.pixels else f"{UNUSED}: the calibration data is numbers, not pixels"
    warnings = tuple(filter(None, (scale_warning(model, specs, found.feeds, input_shapes), unused)))
    for warning in warnings:
        _log.warning("%s", warning)
    pieces = list(batches(found.feeds, specs, _batch(found.samples)))
    # an exporter may write an open batch and a batch of one inside
    apart = len(pieces) < len(found.feeds) and not _runs(session, pieces[0]) and _runs(session, found.feeds[0])
    fit, check = _dealt(found, specs, apart) if len(found.feeds) > _FEW else (found.feeds, found.feeds)
    enough = check is not fit and _different(check) >= _ENOUGH  # fewer say little
    judge = Judge(check, found.description, enough)
    own = Samples(fit, judge, Origin.OWN, found.description, None, (*found.notes, *warnings), apart)
    return _as_long_as_they_are(own, session)


def synthetic_samples(
    model: Model,
    effort: Effort,
    seed: int,
    input_shapes: Mapping[str, Sequence[int]] | None,
    progress: Progress[Any] = silent,
    providers: Sequence[str] = (),
) -> Samples:
    """Inputs made from the model alone, on CUDA where that is among `providers`; random ones where that cannot be."""
    extent = synthetic_extent(model, effort, input_shapes)
    made = _made(model, extent, seed, input_shapes, progress, providers)
    session = Session.of(model)
    specs = session.inputs
    lengths = {len(x) for x in made.feeds.values() if x.ndim}
    if made.apart:
        pieces: list[Feeds] = [{name: x[i] for name, x in made.feeds.items()} for i in range(min(lengths))]
    elif made.origin is Origin.SOUNDS or lengths in ({extent.count}, {extent.pictures}, {extent.photographs}):
        (count,) = lengths
        step = Batching.of(specs).size or _batch(count)
        pieces = [
            {name: np.ascontiguousarray(x[a : a + step]) if x.ndim else x for name, x in made.feeds.items()}
            for a in range(0, count - step + 1, step)
        ]
    else:
        pieces = [made.feeds]
    notes = (made.note,) if made.note else ()
    judge = independent_judge(model, pieces[0], extent.judging, seed, input_shapes, made.origin, JudgeSettings(specs))
    if judge is None:
        fit, check = _split(pieces, specs, made.apart)
        judge = Judge(check, made.origin.text, False)
    else:
        fit = tuple(pieces)
    found = Samples(fit, judge, made.origin, made.origin.text, made.match, notes, made.apart)
    return _as_long_as_they_are(found, session)


def _as_long_as_they_are(samples: Samples, session: Session) -> Samples:
    """The same samples; texts without what fills them up, where the model has a mask for that."""
    mask = "" if samples.apart else mask_of(samples.fit, session)
    if not mask:
        return samples
    fit = without_padding(samples.fit, session.inputs, mask, BATCH)
    both = not _others(samples.check, samples.fit)
    check = fit if both else without_padding(samples.check, session.inputs, mask, _HELD)
    return replace(samples, fit=fit, judge=replace(samples.judge, batches=check), mask=mask)


def synthetic_extent(model: Model, effort: Effort, shapes: Mapping[str, Sequence[int]] | None) -> Extent:
    """How much is made, decided before the start by the size of the activations alone: fewer samples first, then fewer
    steps. On a busy machine it takes longer, and gives the same."""
    count, steps = SYNTHETIC[effort]
    if not any(node.op == "BatchNormalization" for node in model.graph.nodes):
        steps = min(steps, _PLAIN_STEPS)
    each = PER_ACTIVATION * activations(model, costs(model, shapes))
    share = min(1.0, SECONDS[effort] / max(1e-9, each * count * steps))
    fitting = _whole(count * share**0.6)
    pictures = max(fitting, min(_PICTURES, _whole(_LOOKING / max(1e-9, each))))
    judging = max(_LEAST, min(_JUDGING, pictures))
    fewer = max(_LEAST, round(steps * share**0.4))
    return Extent(
        fitting, fewer, pictures, max(_FEWEST_CROPS, min(_MOST_CROPS, pictures)), 2 * SECONDS[effort], judging
    )


def _whole(count: float) -> int:
    """The nearest whole number of batches, at least one, that is not larger."""
    return max(_LEAST, round(count) - round(count) % _LEAST)


def save_samples(samples: Samples, path: Path) -> None:
    """Write all samples to `path` (.npz, by input name), and a contact sheet beside it (.png) if they are images.

    Raises OSError."""
    feeds: Sequence[Feeds] = [*samples.fit, *_others(samples.check, samples.fit)]
    feeds = padded(feeds) if samples.mask else feeds
    arrays: dict[str, Any] = {name: np.concatenate([np.atleast_1d(feed[name]) for feed in feeds]) for name in feeds[0]}
    beside = sheet_of(path)
    with writing(path) as file:
        np.savez_compressed(file, **arrays)
    sheet = contact_sheet(arrays)
    if sheet is not None and beside is not None:
        write_bytes(beside, sheet)


def sheet_of(path: Path) -> Path | None:
    """Where the contact sheet of the samples in `path` goes; None where that is a pipe or a device."""
    return None if kind_of(path) else path.with_suffix(".png")


def are_made(model: Model, effort: Effort, seed: int, shapes: Mapping[str, Sequence[int]] | None) -> bool:
    """Whether the synthetic samples are there from another run."""
    return cache.holds(_key(model, synthetic_extent(model, effort, shapes), seed, shapes))


def _key(model: Model, extent: Extent, seed: int, shapes: Mapping[str, Sequence[int]] | None) -> str:
    settings = {"count": extent.count, "steps": extent.steps, "pictures": extent.pictures, "seed": seed}
    settings["photographs"] = extent.photographs
    return cache.key(model, {**settings, "shapes": {k: list(v) for k, v in (shapes or {}).items()}})


def _made(
    model: Model,
    extent: Extent,
    seed: int,
    shapes: Mapping[str, Sequence[int]] | None,
    progress: Progress[Any],
    providers: Sequence[str],
) -> Synthetic:
    """Synthetic inputs, from the cache where the same were made before."""
    name = _key(model, extent, seed, shapes)
    found = cache.load(name)
    _log.info("synthetic inputs: %s", "made anew" if found is None else "kept from another run")
    _log.debug("their key in the cache is %s", name)
    if found is None:
        found = synthesize(
            model, extent, seed=seed, input_shapes=shapes, provider=quickest(model, providers), progress=progress
        )  # fmt: skip
        cache.save(name, found)
    return found


def _runs(session: Session, feed: Feeds) -> bool:
    try:
        session.run(feed)
    except ExecutionError:
        return False
    return True


def _batch(count: int) -> int:
    """Samples in a batch: few enough that some batches can be held back."""
    return max(1, min(BATCH, count // CHECK_SHARE))


def _dealt(found: Calibration, specs: Sequence[InputSpec], apart: bool) -> tuple[tuple[Feeds, ...], tuple[Feeds, ...]]:
    """What is fitted on, and what is held back: evenly spaced, since folders and files are often sorted by class, and
    the last classes say little of the others. Both in batches unless samples are to stay `apart`."""
    count = len(found.feeds)
    each = max(1, found.samples // count)
    held = max(1, count // CHECK_SHARE, min(count // MOST_SHARE, _WANTED // each))
    at = {(2 * i + 1) * count // (2 * held) for i in range(held)}
    fit, check = ([feed for i, feed in enumerate(found.feeds) if (i in at) is side] for side in (False, True))
    if apart:
        return tuple(fit), tuple(check)
    return tuple(batches(fit, specs, _batch(found.samples))), tuple(batches(check, specs, _HELD))


def _split(
    pieces: list[Feeds], specs: Sequence[InputSpec], apart: bool = False
) -> tuple[tuple[Feeds, ...], tuple[Feeds, ...]]:
    """The last pieces are held back, in larger batches unless they are to stay `apart`; all serve for both where there
    are few."""
    if len(pieces) <= _FEW:
        everything = tuple(pieces)
        return everything, everything
    held = max(1, len(pieces) // CHECK_SHARE)
    check = pieces[-held:]
    return tuple(pieces[:-held]), tuple(check if apart else batches(check, specs, _HELD))
