"""What a model is turned into when it is read, so that the analysis sees into it, and back when it is written."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnx import ModelProto

from .body_names import Names, told_apart, with_old_names
from .calls import Opened, opened_calls
from .closed_calls import closed_calls
from .known_casts import KnownCast, known_casts, with_casts_like
from .sequences import Unrolled, rolled, unrolled


@dataclass(frozen=True)
class Entry:
    """How the proto that is worked on differs from the `original`.

    Calls of functions are `opened`, `sequences` are seen as what they come to, `casts` name their type, and tensors of
    bodies have other names than those, `names`, that they have in the file.
    """

    original: ModelProto | None = field(default=None, repr=False)
    opened: Opened = field(default_factory=Opened, repr=False)
    names: Names = field(default_factory=dict, repr=False)
    sequences: tuple[Unrolled, ...] = field(default=(), repr=False)
    casts: tuple[KnownCast, ...] = field(default=(), repr=False)

    def back(self, proto: ModelProto) -> ModelProto:
        """`proto`, a version of what is worked on, as it is written; itself where nothing differs."""
        named = rolled(with_old_names(with_casts_like(proto, self.casts), self.names), self.sequences)
        return named if self.original is None else closed_calls(named, self.opened, self.original)


def entered(proto: ModelProto) -> tuple[ModelProto, Entry]:
    """The proto to work on, which is `proto` itself where nothing has to be opened, and the way back."""
    copy, opened = opened_calls(proto)
    plain, sequences = unrolled(copy)
    apart, names = told_apart(plain)
    seen, casts = known_casts(apart)
    return seen, Entry(proto if opened.calls else None, opened, names, sequences, casts)
