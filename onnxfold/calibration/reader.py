"""Calibration data: the user's own samples, checked against the model's inputs and cut into feeds that it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..frozen import read_only
from ..model.shapes.nominal import empty_shape
from ..options.preprocess import Preprocess
from ..runtime.batching import Batching, Piece, cut, fixed
from ..runtime.session import Feeds, InputSpec
from ..units import in_bytes
from .images import SUFFIXES, lay_out, needs_preprocess, normalize, told_by
from .numpy_files import memory_limit
from .shape_advice import advice, fits
from .sources import Source, evenly, open_source

Shape = Sequence[int | str | None]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Samples that a model can run.

    Attributes:
        feeds: by input name, in the shapes and element types that the model takes, each to be run as it is: one sample
            each, one batch where the model fixes its size, or what the source gave where samples have no axis.
        samples: how many samples the feeds hold together.
        description: for reports: "128 samples of calib.npz".
        notes: what the user should know: arrays and files that were skipped, fewer samples than asked for.
        pixels: whether any of it were pixels, which `preprocess` turned into numbers.
    """

    feeds: tuple[Feeds, ...]
    samples: int
    description: str
    notes: tuple[str, ...] = ()
    pixels: bool = False

    def __post_init__(self) -> None:
        read_only(self)


def _samples(count: int) -> str:
    return "1 sample" if count == 1 else f"{count} samples"


def read_calibration(
    source: object,
    specs: Sequence[InputSpec],
    *,
    samples: int = 128,
    preprocess: Preprocess | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    max_memory: int | None = None,
) -> Calibration:
    """Read samples for a model with the inputs `specs`.

    Args:
        source: one of

            * a path of an .npz file with one array per input, samples along axis 0 (a single array needs no name if the
              model has one input); of an .npy file or an image; of a folder of such files or images (also in folders
              below), or of ONNX's test_data_set_* folders;
            * a dict of arrays, or one array;
            * dicts of arrays, one or more samples each: an onnxruntime CalibrationDataReader or any iterable. Of those
              that do not tell their length the first samples are taken, of all else evenly spaced ones.
        samples: how many at most (but at least one batch, where the model fixes its size).
        preprocess: how pixels become numbers, for image files and for arrays of uint8 where the model takes floats.
        input_shapes: shapes of inputs that the model leaves open. Their first axis is not looked at.
        max_memory: bytes that a file and the samples taken may have in memory; None: half of the machine's.

    Caches of attention without tokens may be left out. Values are cast where none is lost: floats to floats, integers
    and booleans to integers.

    Raises:
        RequestError: nothing there, damaged or pickled; names, types, shapes or numbers of samples that do not fit; a
            value that is NaN, infinite or out of range; pixels without `preprocess`; more than `max_memory`.
    """
    if samples < 1:
        raise RequestError(f"the number of calibration samples must be at least 1, not {samples}")
    for spec in specs:
        if spec.dtype is None or np.dtype(spec.dtype).kind not in "fiub":
            raise RequestError(
                f"input '{spec.name}' is not a numeric tensor: onnxfold cannot use calibration data for it"
            )
    if not specs:
        raise RequestError("the model has no inputs, so it cannot use calibration data")
    form = Batching.of(specs)
    unit = form.size or 1
    known = [_resolved(spec, (input_shapes or {}).get(spec.name)) for spec in specs]
    pairs = list(zip(known, specs, strict=True))
    limit = memory_limit(max_memory)
    stream = open_source(source, known, preprocess, max(samples, unit), limit)
    pixels = set[str]()
    noted = _noted(stream, known, preprocess, pixels)
    checked = ((where, _checked(feed, pairs, form, preprocess, where)) for where, feed in noted)
    units = (_Unit(pieces, known, form, preprocess) for pieces in cut(checked, form))
    most = max(1, samples // unit)
    feeds, left, stopped = _choose(_affordable(units, most, limit), most, unit, stream.counted)
    if not feeds:
        few = f"only {_samples(left)}, but the model needs batches of {unit}" if left else "no samples"
        raise RequestError(f"calibration data: {stream.title} holds {few}")
    found = sum(form.length(feed) for feed in feeds)
    notes = [*stream.notes]
    if found < samples and len(feeds) < most:
        notes.append(f"{stream.title}: {_samples(found)} (up to {samples} are used)")
    if left:
        notes.append(f"{stream.title}: {_samples(left)} at the end left out: the model needs batches of {unit}")
    first = "the first " if stopped else ""
    described = f"{first}{_samples(found)} of {stream.title}"
    return Calibration(feeds, found, described, tuple(dict.fromkeys(notes)), bool(pixels))


@dataclass(frozen=True, eq=False)
class _Unit:
    """What the model takes in one run, not looked at yet."""

    pieces: Sequence[Piece]
    specs: Sequence[InputSpec]
    form: Batching
    preprocess: Preprocess | None

    @property
    def size(self) -> int:
        """Samples."""
        return sum(piece.stop - piece.start for piece in self.pieces)

    @property
    def memory(self) -> int:
        """Bytes that the feed takes."""
        found = 0
        for piece in self.pieces:
            for spec in self.specs:
                array = piece.feed[spec.name]
                inside = spec.name in self.form.names and len(array)
                values = array.size // len(array) * (piece.stop - piece.start) if inside else array.size
                found += values * np.dtype(spec.dtype).itemsize
        return found

    def feed(self) -> Feeds:
        """One feed with the values, checked, in memory of its own."""
        feeds = [self._values(piece) for piece in self.pieces]
        for piece, feed in zip(self.pieces[1:], feeds[1:], strict=True):
            if not self.form.joinable(feeds[0], feed):
                where = f"{self.pieces[0].where} and {piece.where}"
                raise RequestError(f"samples in {where} differ in shape, so they cannot form a batch of {self.size}")
        return self.form.join(feeds)

    def _values(self, piece: Piece) -> Feeds:
        feed = {}
        for spec in self.specs:
            array, start = piece.feed[spec.name], 0
            if spec.name in self.form.names:
                array, start = array[piece.start : piece.stop], piece.start
            feed[spec.name] = _values(array, spec, self.preprocess, piece.where, start)
        return feed


def _affordable(units: Iterable[_Unit], most: int, limit: int) -> Iterator[_Unit]:
    """`units`, of which so many are taken at `most`. Raises RequestError before they take more than `limit` bytes."""
    seen = largest = 0
    for unit in units:
        seen, largest = min(seen + 1, most), max(largest, unit.memory)
        if seen * largest > limit:
            raise RequestError(
                f"{seen} samples of calibration data take {in_bytes(seen * largest)}, more than {in_bytes(limit)} "
                "(`max_memory`, or half of the machine's memory): take fewer `samples`"
            )
        yield unit


def _choose(units: Iterable[_Unit], most: int, size: int, counted: bool) -> tuple[tuple[Feeds, ...], int, bool]:
    """(at most `most` feeds of `size` samples, samples left over at the end, whether there may be more).

    They are evenly spaced, or the first ones where `counted` is false. Holds twice as many at most while it reads."""
    kept: list[Feeds] = []
    left, stride = 0, 1
    for i, unit in enumerate(units):
        if unit.size < size:
            left = unit.size
        elif i % stride == 0:
            kept.append(unit.feed())
            if not counted and len(kept) == most:
                return tuple(kept), 0, True
            if len(kept) > 2 * most:
                kept, stride = kept[::2], 2 * stride
    return tuple(kept[i] for i in evenly(len(kept), most)), left if len(kept) <= most else 0, False


def _noted(
    stream: Source, specs: Sequence[InputSpec], preprocess: Preprocess | None, pixels: set[str]
) -> Iterator[tuple[str, Feeds]]:
    """What a stream gives, with a note where pixels in arrays become numbers as a file says. `pixels` gets the places
    where there were any."""
    for where, feed in stream.feeds:
        inside = any(_is_image(feed[s.name], s) for s in specs if s.name in feed)
        if preprocess is not None and inside:
            stream.notes.extend(told_by(preprocess))
        if inside or Path(where).suffix.lower() in SUFFIXES:
            pixels.add(where)
        yield where, feed


def _checked(
    feed: Feeds,
    specs: Sequence[tuple[InputSpec, InputSpec]],
    form: Batching,
    preprocess: Preprocess | None,
    where: str,
) -> dict[str, NDArray[Any]]:
    """The arrays with all axes that the model wants (a missing batch axis is added), values untouched. `specs`: inputs
    with their open lengths as the user gave them, and as the model has them.

    Raises RequestError for element types, shapes and numbers of samples that do not fit."""
    out = {}
    count = next((len(x) for name, x in feed.items() if name in form.names and x.ndim), 1)
    for spec, declared in specs:
        empty = empty_shape(spec.shape, count)
        array = feed[spec.name] if spec.name in feed else np.zeros(empty or (), spec.dtype)
        _check_type(array, spec, where)
        if _is_image(array, spec):
            if preprocess is None:
                raise needs_preprocess(where, spec.name)
            array = lay_out(array, spec, preprocess, where)
        elif spec.name in form.names and array.ndim == len(spec.shape) - 1:
            array = array[None]
        batched = spec.name in form.names
        if spec.shape and not fits(array.shape, spec, batched):
            given = feed[spec.name].shape
            why = "" if form.names else "; its inputs share no batch axis: pass one file or dict for each sample"
            why = advice(given, spec, batched, declared) or why
            shapes = f"{list(given)} in {where}, but the model takes {_show(spec.shape)}"
            raise RequestError(f"input '{spec.name}' has shape {shapes}{why}")
        if array.size == 0 and (empty is None or array.shape[1:] != empty[1:]):
            raise RequestError(f"input '{spec.name}' has no values in {where}: its shape is {list(array.shape)}")
        out[spec.name] = array
    lengths = {name: len(x) for name, x in out.items() if name in form.names}
    for name, length in lengths.items():
        if length != (expected := form.length(out)):
            other = next(iter(lengths))
            raise RequestError(
                f"{where} holds {expected} samples of '{other}' but {length} of '{name}': the counts must match"
            )
    return out


def _check_type(array: NDArray[Any], spec: InputSpec, where: str) -> None:
    kind, wanted = array.dtype.kind, np.dtype(spec.dtype)
    if array.dtype.hasobject or kind not in "fiub":
        what = "Python objects" if array.dtype.hasobject else f"type {array.dtype}"
        raise RequestError(f"input '{spec.name}' holds {what} in {where}, no plain numbers: save it as {wanted}")
    if (kind == "f") != (wanted.kind == "f") and not _is_image(array, spec):
        raise RequestError(
            f"input '{spec.name}' has type {array.dtype} in {where}, but the model takes {wanted}: convert it"
        )


def _is_image(array: NDArray[Any], spec: InputSpec) -> bool:
    return array.dtype == np.uint8 and np.dtype(spec.dtype).kind == "f" and len(spec.shape) == 4


def _values(part: NDArray[Any], spec: InputSpec, preprocess: Preprocess | None, where: str, start: int) -> NDArray[Any]:
    """A copy in the element type of the model. `start`: where `part` begins in its array.

    Raises RequestError for values that are not finite or that the type cannot hold."""
    wanted = np.dtype(spec.dtype)
    if _is_image(part, spec) and preprocess is not None:
        out = normalize(part, spec, preprocess, where)
    else:
        with np.errstate(over="ignore"):
            out = np.array(part, wanted, order="C")
    wrong = ~np.isfinite(out) if wanted.kind == "f" else out != part
    if wrong.any():
        at = np.argwhere(wrong)[0].tolist()
        value = part[tuple(at)]
        index = [at[0] + start, *at[1:]] if at else []
        why = f"which {wanted} cannot hold" if np.isfinite(value) else "which is not usable for calibration"
        raise RequestError(f"input '{spec.name}' is {value} at {index} in {where}, {why}")
    return out


def _resolved(spec: InputSpec, given: Sequence[int] | None) -> InputSpec:
    """`spec` with its open dimensions, except the first, as `given`."""
    if given is None or not given:
        return spec
    if spec.shape and len(given) != len(spec.shape):
        raise RequestError(f"input '{spec.name}' has {len(spec.shape)} dimensions, not {len(given)}")
    declared: Shape = spec.shape or [None] * len(given)
    return replace(
        spec, shape=(declared[0], *(d if fixed(d) else g for d, g in zip(declared[1:], given[1:], strict=True)))
    )


def _show(shape: Shape) -> str:
    return f"[{', '.join('?' if d is None else str(d) for d in shape)}]"
