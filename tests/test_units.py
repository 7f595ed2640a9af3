"""Names from models and paths: what is shown of them cannot steer a terminal or a browser."""

from __future__ import annotations

import unicodedata

import pytest

from onnxfold.units import LONGEST_MESSAGE, LONGEST_NAME, ago, read_size, readable, visible

STEERING = {
    "escape": "\x1b[2J\x1b]0;title\x07", "new lines": "\n\r\u2028\x85", "tabs": "\t\v\f\b", "C1": "\x80\x9b31m\x9d",
    "bidi": "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c",
    "no width": "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u180e\ufe0f\U000e0100", "fillers": "\u115f\u3164\uffa0",
    "lone surrogate": "\udc9b", "tags": "\U000e0041", "delete": "\x7f\x00",
}  # fmt: skip


@pytest.mark.parametrize("how", STEERING)
def test_what_steers_a_terminal_is_escaped(how: str) -> None:
    name = f"a{STEERING[how]}b"
    assert visible(name).isascii() and visible(name).isprintable()
    assert visible(name) == name.encode("unicode_escape").decode()
    message = readable(f"weight '{name}' is broken\nwholly")
    assert message.isascii() and message.isprintable() and message.endswith("' is broken wholly")


def test_no_control_or_format_character_is_left() -> None:
    for code in range(0x110000):
        if unicodedata.category(chr(code))[0] == "C":
            assert chr(code) not in visible(chr(code)), hex(code)


@pytest.mark.parametrize("name", ["conv1.weight", "層/重み", "élan vital", "a → b", "π²", ""])
def test_other_names_stay(name: str) -> None:
    assert visible(name) == readable(name) == name


def test_long_names_lose_their_middle() -> None:
    name = "begin" + "x" * 1_000_000 + "end"
    assert len(visible(name)) == LONGEST_NAME and visible(name).startswith("beginx") and visible(name).endswith("xend")
    assert visible("x" * LONGEST_NAME) == "x" * LONGEST_NAME
    spaced = "begin" + " x" * 500_000 + " end"
    for text in (f"weight '{name}' is broken", f"weight '{spaced}' is broken", f"{name}: no such file, is broken"):
        shown = readable(text)
        assert len(shown) < LONGEST_NAME + 50 and "begin" in shown and "end" in shown and shown.endswith("is broken")
    assert len(readable("many words " * 100_000)) == LONGEST_MESSAGE


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("12", 12), ("4G", 4 * 2**30), ("1.5 GiB", 3 * 2**29), (" 500mb ", 500 * 2**20), ("2T", 2**41),
        ("", None), ("G", None), ("-1", None), ("4 X", None), ("nan", None), ("1e9", None), ("9" * 400, None),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int | None) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "just now"), (119, "just now"), (120, "2 minutes ago"), (7199, "119 minutes ago"), (7200, "2 hours ago"),
     (172799, "47 hours ago"), (172800, "2 days ago")],
)  # fmt: skip
def test_ages(seconds: float, words: str) -> None:
    assert ago(seconds) == words
