"""How pixels become numbers, where calibration inputs are images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from numbers import Real
from typing import Any

from ..errors import RequestError
from ..units import brief, did_you_mean

EXAMPLE = "0.485:0.456:0.406,0.229:0.224:0.225,nchw"  # what `imagenet` stands for
LEAST_STD = 1e-6  # far below 1/255, which leaves pixels as they are


class Layout(Enum):
    """The order of axes in which a model takes images."""

    NCHW = "nchw"
    NHWC = "nhwc"

    @property
    def channels(self) -> int:
        """The axis that holds the channels."""
        return 1 if self is Layout.NCHW else 3


class Resize(Enum):
    """How an image of another size becomes one that the model takes."""

    CROP = "crop"
    """Scaled until it just covers the size, over `crop`; the center is cut out."""

    STRETCH = "stretch"
    """Scaled to the size, whatever its proportions."""

    LETTERBOX = "letterbox"
    """Scaled until it just fits; what is left over is gray."""


CROP = 0.875  # share of the shorter side that the center crop keeps: 256 -> 224, as image classifiers are evaluated
PAD = 114  # of 255: the gray of YOLO's letterbox


@dataclass(frozen=True)
class Preprocess:
    """How pixels 0..255 become numbers: ``(pixel / 255 - mean) / std``, channels in the order red, green, blue.

    There is no other rule: means and stds are of pixels scaled to 0..1. ``0,1`` scales to 0..1, ``0.5,0.5`` to -1..1,
    and ``0,1/255`` leaves 0..255.

    Attributes:
        mean, std: one value for all channels, or one for each, in the order in which the model takes them.
        layout: how the model takes images; None: as the shape of its input tells.
        resize: how image files of another size are made to fit.
        crop: with `Resize.CROP`, the share of the tighter side that stays.
        pad: with `Resize.LETTERBOX`, the gray beside the image, 0..255.
        bicubic: whether images are scaled by cubic interpolation, not linear.
        bgr: whether the model takes blue first.
        origin: the file that says so; '' for what the user gave.

    Raises:
        RequestError: a mean outside 0..1 or a std outside 0..1 or of 0 (values for 0..255, most likely), or not one or
            three of them.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: Layout | None = None
    resize: Resize = Resize.CROP
    crop: float = CROP
    pad: int = PAD
    bicubic: bool = False
    bgr: bool = False
    origin: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, tuple | list) or not all(map(_is_number, values)):
                raise RequestError(f"`{name}` of a Preprocess must be numbers, like (0.5,) or (0.485, 0.456, 0.406)")
            object.__setattr__(self, name, tuple(map(float, values)))
        for name, value, kind in (("layout", self.layout, Layout), ("resize", self.resize, Resize)):
            if not isinstance(value, kind) and not (kind is Layout and value is None):
                known = ", ".join(f"{kind.__name__}.{one.name}" for one in kind)
                raise RequestError(f"`{name}` of a Preprocess must be one of {known}, not {brief(value)}")
        if not _is_number(self.crop) or not 0 < self.crop <= 1:
            raise RequestError(f"`crop` of a Preprocess must be above 0 and at most 1, not {brief(self.crop)}")
        if not isinstance(self.pad, int) or not 0 <= self.pad <= 255:
            raise RequestError(f"`pad` of a Preprocess must be a whole number from 0 to 255, not {brief(self.pad)}")
        if self.resize is not Resize.CROP:  # of no use there: what does the same is the same
            object.__setattr__(self, "crop", CROP)
        if self.resize is not Resize.LETTERBOX:
            object.__setattr__(self, "pad", PAD)
        self._check_values()

    def _check_values(self) -> None:
        for name, values, low in (("mean", self.mean, 0.0), ("std", self.std, LEAST_STD)):
            if len(values) not in (1, 3):
                raise RequestError(f"`preprocess` needs 1 or 3 values for {name}, not {len(values)}")
            for value in values:
                if not low <= value <= 1:
                    raise RequestError(
                        f"`preprocess`: {name} {value:g} must be from {low:g} to 1, because pixels are scaled to 0..1 "
                        "first: write 127.5 of 0..255 as 127.5/255"
                    )
        if len({len(self.mean), len(self.std)} - {1}) > 1:
            raise RequestError(f"`preprocess` has {len(self.mean)} means but {len(self.std)} stds")

    def __str__(self) -> str:
        """The text that `parse` makes it of."""
        words = [":".join(map(repr, values)) for values in (self.mean, self.std)]
        words += [] if self.layout is None else [self.layout.value]
        if self.resize is not Resize.CROP:
            words.append(self.resize.value if self.pad == PAD else f"{self.resize.value}:{self.pad}")
        elif self.crop != CROP:
            words.append(f"crop:{self.crop!r}")
        return ",".join([*words, *(word for word in ("bicubic", "bgr") if getattr(self, word))])

    @staticmethod
    def parse(text: str) -> Preprocess:
        """The preprocessing that ``MEAN,STD`` or the name of a preset asks for, and words behind it.

        Values are written as 0.5, 127.5/255 or R:G:B. Words: ``nchw`` or ``nhwc``; ``crop`` (also ``crop:0.9``),
        ``stretch`` or ``letterbox`` (also ``letterbox:0``); ``bicubic``; ``bgr``.
        """
        if not isinstance(text, str):
            raise RequestError(f"`preprocess` must be a text like {EXAMPLE}, not {brief(text)}")
        parts = [part.strip() for part in text.split(",")]
        preset = PRESETS.get(parts[0].lower())
        try:
            if preset is None:
                mean, std, *words = parts
                preset = {"mean": _numbers(mean), "std": _numbers(std)}
            else:
                words = parts[1:]
            said = [_said(word.lower()) for word in words]
        except (ValueError, ZeroDivisionError):
            near = did_you_mean(parts[0], PRESETS) if len(parts) == 1 else ""
            raise RequestError(
                f"`preprocess` must be {', '.join(PRESETS)}, a preprocessor_config.json, or MEAN,STD,LAYOUT (like "
                f"{EXAMPLE}), not {brief(text, 80)}{near}"
            ) from None
        keys = [key for one in said for key in one]
        if len(keys) != len(set(keys)):
            raise RequestError(f"`preprocess` says one thing twice in {brief(text, 80)}: leave one out")
        return Preprocess(**{**preset, **{key: value for one in said for key, value in one.items()}})


@dataclass(frozen=True)
class PreprocessFile:
    """Preprocessing as a preprocessor_config.json of Hugging Face says, which is read with the inputs."""

    path: str

    def __str__(self) -> str:
        return self.path


_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "imagenet": _IMAGENET,
    "0-1": {"mean": (0.0,), "std": (1.0,)},
    "-1-1": {"mean": (0.5,), "std": (0.5,)},
    "yolo": {"mean": (0.0,), "std": (1.0,), "resize": Resize.LETTERBOX},
    "clip": {**_CLIP, "crop": 1.0, "bicubic": True},
    "raw": {"mean": (0.0,), "std": (1 / 255,)},
}
"""What people call usual ways: those of torchvision's weights, of most exporters, of Ultralytics, of OpenAI's CLIP."""


def _said(word: str) -> dict[str, Any]:
    """What a word asks for. Raises ValueError."""
    name, colon, value = word.partition(":")
    if name in ("bicubic", "bgr") and not colon:
        return {name: True}
    if name in ("nchw", "nhwc") and not colon:
        return {"layout": Layout(name)}
    found: dict[str, Any] = {"resize": Resize(name)}
    if colon and found["resize"] is Resize.CROP:
        found["crop"] = float(value)
    elif colon and found["resize"] is Resize.LETTERBOX:
        found["pad"] = int(value)
    elif colon:
        raise ValueError
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _numbers(text: str) -> tuple[float, ...]:
    values = []
    for part in text.split(":"):
        number, slash, divisor = part.partition("/")
        values.append(float(number) / (float(divisor) if slash else 1.0))
    return tuple(values)
