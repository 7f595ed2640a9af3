"""What is written beside a model: refused before the work where it would replace what the run reads or writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from onnx import ModelProto

from ..calibration.files_read import MODEL, FilesRead
from ..calibration.samples import sheet_of
from ..errors import RequestError
from ..model.files import Read, check_apart, check_file
from ..model.model import Source, check_source
from ..model.save import check_target
from ..options.options import FoldOptions


def check_written(
    models: Sequence[Source],
    calibration: object = None,
    output: str | Path | None = None,
    synthetic: str | Path | None = None,
    others: Sequence[Read] = (),
    metric: object = None,
    more: Sequence[Read] = (),
) -> None:
    """Find out before the work whether all files can be written, each to a place of its own. Writes nothing.

    Args:
        models, calibration, metric: what the run reads; the first model is the one that an `output` is made of.
        output, synthetic: the model to write, and the synthetic inputs.
        others: what else is written, with what messages call it, like "the report".
        more: what else is read, like "the plan".

    Raises:
        RequestError: one of them cannot be written, or would replace what the run reads, or another one.
    """
    for model in models:
        check_source(model)
    reads, written = FilesRead(models, calibration, metric, more), list[Read]()
    if output is not None:
        source = None if isinstance(models[0], ModelProto) else Path(models[0])
        check_target(Path(output), source, reads)
        written.append((Path(output), MODEL))
    if synthetic is not None:
        written += _synthetic(Path(synthetic), reads)
    for path, what in others:
        check_file(path, what, reads)
        written.append((path, what))
    check_apart(written)


def files_of(model: Source, options: FoldOptions) -> Iterable[Read]:
    """What a fold reads, and the model that it writes: nothing that is made of it later may replace these."""
    output = [] if options.output.path is None else [Path(options.output.path)]
    return FilesRead([model, *output], options.calibration.data, options.measure.metric)


def _synthetic(path: Path, reads: FilesRead) -> list[Read]:
    what, sheet = "the synthetic inputs", sheet_of(path)
    check_file(path, what, reads)
    if sheet is None:
        return [(path, what)]
    if sheet == path:
        raise RequestError(f"{what} cannot be {path}, where their preview images go: use an .npz file")
    check_file(sheet, "the preview images of the synthetic inputs", reads)
    return [(path, what), (sheet, "the preview images of the synthetic inputs")]
