"""The pass that says where a result comes from, in its own metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..model.metadata import entry_bytes, installed, sha256, source_hash
from ..options.options import FoldOptions, FuseOptions
from .base import BasePass, Run, State

VERSION, OPTIONS, SOURCE = "onnxfold.version", "onnxfold.options", "onnxfold.source_sha256"


@dataclass(frozen=True)
class Provenance:
    """What the metadata of the result are going to say, by key."""

    entries: Mapping[str, str]

    @cached_property
    def size(self) -> int:
        """Bytes that this takes in the file."""
        return entry_bytes(self.entries)

    def naming(self, chain: Mapping[str, Any]) -> Provenance:
        """The same for a result of which a `chain` of steps was chosen."""
        options = {**json.loads(self.entries[OPTIONS]), "chain": chain}
        return Provenance({**self.entries, OPTIONS: json.dumps(options, sort_keys=True)})


class NoteProvenance(BasePass):
    """Leaves a `Provenance`: which onnxfold, with which options, of which file. `Stage` writes it.

    It holds nothing of where files lie, and nothing that does not change the result (as how many jobs there are): the
    same input gives the same bytes.
    """

    name = "analyze"

    def __init__(self, options: FoldOptions | FuseOptions) -> None:
        self._options = options

    def __call__(self, state: State, run: Run) -> State:
        source = sha256(state.source.path)
        options = self._options.recorded(source_hash(state.source) if self._options.planned else None)
        entries = {VERSION: installed("onnxfold"), OPTIONS: json.dumps(options, sort_keys=True)}
        return state.adding(Provenance(entries if source is None else {**entries, SOURCE: source}))


def noting(options: FoldOptions | FuseOptions) -> list[NoteProvenance]:
    """The pass, where the result is to say where it comes from."""
    return [NoteProvenance(options)] if options.output.provenance else []


def bytes_noted(state: State) -> int:
    """How many bytes of the result only say where it comes from."""
    found = state.found(Provenance)
    return 0 if found is None else found.size
