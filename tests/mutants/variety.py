"""Mutants of all kinds: one from a file and a seed."""

from __future__ import annotations

import contextlib
import random

from onnx import ModelProto

from .damage import DAMAGE, misspelt
from .strange import EDITS, words

DATA = "weights.bin"  # a file beside the mutant, of DATA_SIZE bytes
DATA_SIZE = 4096


def mutant(content: bytes, seed: int) -> tuple[bytes, str]:
    """A mutant of the model in `content`, and in a few words what was done to it."""
    chance = random.Random(seed)
    if chance.random() < 0.3:
        damage = chance.choice(DAMAGE)
        return damage(content, chance), damage.__name__
    proto = ModelProto()
    proto.ParseFromString(content)
    if chance.random() < 0.08:
        return misspelt(content, chance, words(proto)), "misspelt"
    done = []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        edit = chance.choice(EDITS)
        with contextlib.suppress(IndexError, ValueError):  # nothing of the kind in this model; out of range
            edit(proto, chance)
            done.append(edit.__name__)
    return proto.SerializeToString(), "+".join(done) or "nothing"
