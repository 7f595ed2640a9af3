"""A chain of steps that makes a model smaller or faster, and how a user asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...options.choices import Fusion, Quantization, Step

SHARED = 0.25  # of the layers that lose their own weights
DROPPED = "25%"  # of the residual blocks that go


@dataclass(frozen=True)
class Chain:
    """Some of these, in this order: layers changed as wholes (`fuse`, `Step.SHARE` or `Step.DROP`), or channels folded
    until `share` of the multiply-accumulates remain; training (`refine`); fewer bits (`quantize`). None of them: the
    model as it is."""

    share: float | None = None
    fuse: Step | None = None
    refine: bool = False
    quantize: Quantization | None = None

    @property
    def label(self) -> str:
        """What people call it."""
        parts = ["share weights" if self.fuse is Step.SHARE else "drop blocks"] if self.fuse is not None else []
        parts += [f"fold {100 * self.share:g} %"] if self.share is not None else []
        parts += ["refine"] if self.refine else []
        parts += [self.quantize.label] if self.quantize is not None else []
        return ", ".join(parts) or "leave it"

    @property
    def function(self) -> str:
        """Which function of onnxfold makes it; '' where nothing is to be done."""
        return "" if self == Chain() else "fold" if self.fuse is None else "fuse"

    @property
    def how(self) -> Mapping[str, Any]:
        """The keywords with which the function makes it."""
        found: dict[str, Any] = {}
        if self.fuse is Step.SHARE:
            found = {"how": Fusion.MEAN.value, "share": SHARED}
        elif self.fuse is Step.DROP:
            found = {"how": None, "drop_blocks": DROPPED}
        elif self != Chain():
            found = {"ratio": 0} if self.share is None else {"target_macs": self.share}
        found |= {"refine": True} if self.refine else {}
        return found | ({"quantize": self.quantize.value} if self.quantize is not None else {})

    @property
    def asked(self) -> str:
        """The keywords in words, as messages have them."""
        return " ".join(f"`{name}={value!r}`" for name, value in self.how.items() if value is not None)


def kinds(allow: Sequence[Step]) -> tuple[Quantization, ...]:
    """The kinds of quantization among the steps."""
    return tuple(kind for kind in Quantization if kind.value in [step.value for step in allow])
