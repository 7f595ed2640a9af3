"""Damaged bytes: what broken disks, cut-off downloads and editors make of a file."""

from __future__ import annotations

import random


def mutated(content: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, mostly where the graph is written and not in the weights."""
    out = bytearray(content)
    kind = chance.choice(["flip", "set", "delete", "insert"])
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        if not out:
            break
        at = somewhere(out, chance)
        if kind == "flip":
            out[at] ^= 1 << chance.randrange(8)
        elif kind == "set":
            out[at] = chance.choice([0, 1, 127, 128, 255])
        elif kind == "delete":
            del out[at]
        else:
            out.insert(at, chance.randrange(256))
    return bytes(out)


def somewhere(content: bytes | bytearray, chance: random.Random) -> int:
    """A place anywhere, near the beginning or near the end: the graph is mostly written there."""
    size = len(content)
    places = (chance.randrange(size), min(chance.randrange(3000), size - 1), max(0, size - 1 - chance.randrange(8000)))
    return chance.choice(places)


def truncated(content: bytes, chance: random.Random) -> bytes:
    return content[: somewhere(content, chance)]


def doubled(content: bytes, chance: random.Random) -> bytes:
    """A range once more, behind itself or elsewhere."""
    begin, to = somewhere(content, chance), somewhere(content, chance)
    piece = content[begin : begin + chance.choice([1, 4, 16, 64, 500])]
    return content[:to] + piece + content[to:]


def overwritten(content: bytes, chance: random.Random) -> bytes:
    """A range of one value, or of noise."""
    begin, size = somewhere(content, chance), chance.choice([2, 8, 32, 100])
    size = min(size, len(content) - begin)
    piece = chance.choice([bytes(size), b"\xff" * size, chance.randbytes(size)])
    return content[:begin] + piece + content[begin + size :]


def misspelt(content: bytes, chance: random.Random, words: list[str]) -> bytes:
    """A name with a byte that no UTF-8 text has."""
    word = chance.choice(words).encode() if words else b""
    at = content.find(word)
    if at < 0 or not word:
        return mutated(content, chance)
    at += chance.randrange(len(word))
    return content[:at] + chance.choice([b"\xff", b"\xc0", b"\x80", b"\x00"]) + content[at + 1 :]


DAMAGE = (mutated, mutated, truncated, doubled, overwritten)
