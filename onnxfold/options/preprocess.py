"""How pixels become numbers, where calibration inputs are images."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from numbers import Real

from ..errors import RequestError

EXAMPLE = "0.485:0.456:0.406,0.229:0.224:0.225,nchw"
LEAST_STD = 1e-6  # far below 1/255, which leaves pixels as they are


class Layout(Enum):
    """The order of axes in which a model takes images."""

    NCHW = "nchw"
    NHWC = "nhwc"

    @property
    def channels(self) -> int:
        """The axis that holds the channels."""
        return 1 if self is Layout.NCHW else 3


@dataclass(frozen=True)
class Preprocess:
    """How pixels 0..255 become numbers: ``(pixel / 255 - mean) / std``, channels in the order red, green, blue.

    There is no other rule: means and stds are of pixels scaled to 0..1. ``0,1,nchw`` scales to 0..1,
    ``0.5,0.5,nchw`` to -1..1, and ``0,1/255,nchw`` leaves 0..255.

    Attributes:
        mean, std: one value for all channels, or one for each.
        layout: how the model takes images.

    Raises:
        RequestError: a mean outside 0..1 or a std outside 0..1 or of 0 (values for 0..255, most likely), or not one or
            three of them.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: Layout

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, tuple | list) or not all(map(_is_number, values)):
                raise RequestError(f"`{name}` of a Preprocess must be numbers, like (0.5,) or (0.485, 0.456, 0.406)")
            object.__setattr__(self, name, tuple(map(float, values)))
        if not isinstance(self.layout, Layout):
            known = ", ".join(f"Layout.{one.name}" for one in Layout)
            raise RequestError(f"`layout` of a Preprocess must be one of {known}, not {self.layout!r:.60}")
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
        mean, std = (":".join(map(repr, values)) for values in (self.mean, self.std))
        return f"{mean},{std},{self.layout.value}"

    @staticmethod
    def parse(text: str) -> Preprocess:
        """The preprocessing that ``MEAN,STD,LAYOUT`` asks for: values as 0.5, 127.5/255 or R:G:B; nchw or nhwc."""
        if not isinstance(text, str):
            raise RequestError(f"`preprocess` must be a text like {EXAMPLE}, not {text!r:.60}")
        try:
            mean, std, layout = (part.strip() for part in text.split(","))
            return Preprocess(_numbers(mean), _numbers(std), Layout(layout.lower()))
        except (ValueError, ZeroDivisionError):
            raise RequestError(
                f"`preprocess` must be MEAN,STD,LAYOUT (like {EXAMPLE}), not {' '.join(text.split())!r:.80}"
            ) from None


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _numbers(text: str) -> tuple[float, ...]:
    values = []
    for part in text.split(":"):
        number, slash, divisor = part.partition("/")
        values.append(float(number) / (float(divisor) if slash else 1.0))
    return tuple(values)
