"""How numbers and names are shown to people: bytes, counts, milliseconds, percent; names that steer no terminal."""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Iterable, Sequence


def in_bytes(n: int) -> str:
    """A number of bytes."""
    return f"{n} B" if n < 1000 else _scaled(n, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)))


_SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def read_size(text: str) -> int | None:
    """The bytes that 4G, 500M, 1.5 GiB or a plain number stands for; None where it stands for none."""
    found = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE | re.ASCII)
    return None if found is None else int(float(found[1]) * _SIZES[found[2].upper()])


def in_units(n: int) -> str:
    """A count."""
    return str(n) if n < 1000 else _scaled(n, (("G", 1e9), ("M", 1e6), ("k", 1e3)))


def _scaled(n: int, units: Sequence[tuple[str, float]]) -> str:
    """Three significant digits and a unit."""
    unit, size = next((u, s) for u, s in units if n >= s)
    value = n / size
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def in_ms(ms: float) -> str:
    """A time in milliseconds."""
    return f"{ms:.{3 if ms < 1 else 2 if ms < 10 else 1 if ms < 100 else 0}f} ms"


def ago(seconds: float) -> str:
    """How long something is past, in whole units of which there are two at least."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"


def in_percent(share: float) -> str:
    """A share, 0..1 or more, with two significant digits."""
    if not math.isfinite(share):
        return "not finite"
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def as_fast(times: float) -> str:
    """How fast something is, like "1.25x as fast"; one that is no faster than noise is "as fast".

    >>> as_fast(1.25), as_fast(1.004)
    ('1.25x as fast', 'as fast')
    """
    return "as fast" if round(times, 2) == 1 else f"{times:.2f}x as fast"


def how_many(count: int, what: str) -> str:
    """A number of things, like "1 group" and "2 groups"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def change(before: int, after: int) -> str:
    """By how much `after` differs, in percent with one decimal."""
    return f"{100 * (after / before - 1):+.1f} %" if before else ""


def less(before: int, after: int) -> str:
    """By how much `after` differs, in whole percent."""
    return f"{100 * (after / before - 1):+.0f} %" if before else "+0 %"


def brief(value: object, longest: int = 60) -> str:
    """A value as Python writes it, in one line and cut after `longest` characters.

    >>> brief([1, "two"]), brief(10**5000)
    ("[1, 'two']", 'a number of more than 4300 digits')
    """
    try:
        return " ".join(repr(value).split())[:longest]
    except ValueError:  # Python writes no number of more digits
        return f"a number of more than {sys.get_int_max_str_digits()} digits"


def did_you_mean(name: str, known: Iterable[str], quote: str = "'") -> str:
    """ ": did you mean 'X'?" where something `known` is close to `name`, else ''."""
    bare = {one.lstrip("-"): one for one in known}  # dashes are no likeness
    near = difflib.get_close_matches(name.lstrip("-"), bare, 1)
    return f": did you mean {quote}{bare[near[0]]}{quote}?" if near else ""


LONGEST_NAME = 200  # characters of a name that are shown
LONGEST_MESSAGE = 4000
# what Python calls printable and nobody sees: joiners, fillers, variation selectors
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_QUOTED = re.compile(r"(?<!\w)'([^']*)'(?!\w)")
_WORD = re.compile(rf"\S{{{LONGEST_NAME + 1},}}")


def visible(name: str, longest: int = LONGEST_NAME) -> str:
    """A name from a model or a path as it may be shown: in one line, `longest` characters at most (the middle is left
    out), and those that a terminal or a browser obeys or hides (control and bidirectional characters, those of no
    width) as escapes.

    >>> visible("a\\x1b[31m\\u202eb"), visible("x" * 30, 20)
    ('a\\\\x1b[31m\\\\u202eb', 'xxxxxxxx ... xxxxxxx')
    """
    return _escaped(_middle_left_out(name, longest))


def readable(message: str) -> str:
    """A message as it may be shown: in one line, with the names in it as `visible` shows them, and not too long.

    A name is what stands in '...' quotes, or a word that is longer than any other.
    """
    text = " ".join(message.splitlines())
    text = _QUOTED.sub(lambda found: f"'{_middle_left_out(found[1], LONGEST_NAME)}'", text)
    text = _WORD.sub(lambda found: _middle_left_out(found[0], LONGEST_NAME), text)
    return _escaped(_middle_left_out(text, LONGEST_MESSAGE))


def _escaped(text: str) -> str:
    return "".join(
        c if c.isprintable() and not _INVISIBLE.match(c) else c.encode("unicode_escape").decode() for c in text
    )


def _middle_left_out(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    gap = " ... "
    start = (longest - len(gap) + 1) // 2
    return text[:start] + gap + text[len(text) - (longest - len(gap) - start) :]
