"""The preprocessor_config.json that Hugging Face keeps beside a model: how its pixels become numbers.

What it says is that of transformers' image processors, in their order: resize, crop, rescale, normalize, flip channels.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..model.input_files import no_file
from ..options.preprocess import Preprocess, PreprocessFile, Resize

NAME = "preprocessor_config.json"
_log = logging.getLogger(__name__)
_RESAMPLE = {2: False, 3: True}  # of Pillow, that we have: bilinear, bicubic
_WARPED = 384  # from here on ConvNeXt stretches images
_UNUSUAL = ("do_pad", "do_reduce_labels", "do_thumbnail", "do_align_long_axis", "do_split_image")
Known = Preprocess | PreprocessFile | None


def resolved(asked: Known, model: Path | None) -> Preprocess | None:
    """The preprocessing that was asked for; where that is None, that of a file beside the `model`, if there is one that
    can be used. Raises RequestError for a file that was asked for and cannot."""
    if isinstance(asked, PreprocessFile):
        return read_processor(Path(asked.path))
    if asked is not None or model is None:
        return asked
    folders = [model.parent, *([model.parent.parent] if model.parent.name == "onnx" else [])]
    for path in (folder / NAME for folder in folders):
        try:
            if path.is_file():
                return read_processor(path)
        except (OSError, RequestError) as error:
            _log.info("%s beside the model is not used: %s", NAME, error)
    return None


def read_processor(path: Path) -> Preprocess:
    """What a file says. Raises RequestError for one that cannot be read, or asks for what there is not here."""
    try:
        if kind := no_file(path):
            raise RequestError(f"cannot read {path}: it is {kind}, not a file")
        given = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path} is not valid JSON: pass `preprocess` as MEAN,STD") from error
    if not isinstance(given, Mapping) or not {"image_mean", "do_rescale", "do_normalize", "do_resize"} & set(given):
        raise RequestError(f"{path} says nothing of images: give `preprocess` as MEAN,STD")
    if unusual := [name for name in _UNUSUAL if given.get(name)]:
        raise RequestError(f"{path} asks for '{unusual[0]}', which is not done here: give `preprocess`, or an .npz")
    try:
        mean, std = _values(given)
        return Preprocess(mean, std, origin=path.name, bgr=bool(given.get("do_flip_channel_order")), **_geometry(given))
    except (TypeError, ValueError, KeyError, ArithmeticError):
        raise RequestError(f"{path} says what cannot be understood: give `preprocess` as MEAN,STD") from None
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error


def _values(given: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of pixels scaled to 0..1: the file has those of pixels times its factor."""
    times = 255 * float(given.get("rescale_factor", 1 / 255)) if given.get("do_rescale", True) else 255.0
    mean, std = [0.0], [1.0]
    if given.get("do_normalize", True):
        mean, std = (list(map(float, given[name])) for name in ("image_mean", "image_std"))
    if given.get("rescale_offset"):  # EfficientNet: from -1
        mean = [one + 1 for one in mean]
    return _shortened([one / times for one in mean]), _shortened([one / times for one in std])


def _shortened(values: Sequence[float]) -> tuple[float, ...]:
    """One value where it is that of all channels, of which a model may have one."""
    return tuple(values[:1] if len(set(values)) == 1 else values)


def _geometry(given: Mapping[str, Any]) -> dict[str, Any]:
    """How images of another size are made to fit."""
    bicubic = _RESAMPLE[int(given.get("resample", 2))]
    if not given.get("do_resize", True):
        return {"bicubic": bicubic, "crop": 1.0}
    size, crops = given.get("size", 224), bool(given.get("do_center_crop"))
    sides = {"shortest_edge": size} if isinstance(size, int) else dict(size)
    if set(sides) == {"height", "width"}:
        if crops and given.get("crop_size", size) not in (size, sides["height"]):
            raise ValueError
        return {"bicubic": bicubic, "resize": Resize.STRETCH}
    edge = sides.pop("shortest_edge")
    if sides:
        raise ValueError
    if crops:
        kept = given.get("crop_size", edge)
        return {"bicubic": bicubic, "crop": min(1.0, (kept["height"] if isinstance(kept, Mapping) else kept) / edge)}
    if "crop_pct" in given and edge < _WARPED:
        return {"bicubic": bicubic, "crop": float(given["crop_pct"] or 0.875)}
    if "crop_pct" in given or isinstance(size, int):
        return {"bicubic": bicubic, "resize": Resize.STRETCH}
    raise ValueError
