"""What is written behind options on the command line, as values."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from ..errors import RequestError
from ..options.json_source import once
from ..units import read_size

T = TypeVar("T")
MODELS = (".onnx", ".pb")  # endings of models in protobuf's binary form, the only one that is written
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")


def size_of(text: str) -> int:
    """4G, 500M or a number of bytes. Raises RequestError."""
    size = read_size(text)
    if not size:
        raise RequestError(f"--max-memory wants a size like 4G or 500M, not '{text}'")
    return size


def a_file(text: str) -> Path:
    """A file to read or to write. Raises ArgumentTypeError for the `-` that means a stream elsewhere."""
    return Path(file_text(text))


def file_text(text: str) -> str:
    """The same as text."""
    if not text:
        raise argparse.ArgumentTypeError("name a file, not ''")
    if text == "-":
        raise argparse.ArgumentTypeError(
            "name a file: nothing is read from standard input or written to standard output (for a file called '-' "
            "write ./-)"
        )
    return text


def check_ending(output: Path) -> None:
    """Refuse a name under which nobody looks for a model. Raises RequestError."""
    ending = output.suffix.lower()
    if ending in COMPRESSED:
        raise RequestError(
            f"{output}: models are written as they are: name {output.with_suffix('').stem}.onnx, then compress it"
        )
    if ending not in MODELS:
        raise RequestError(
            f"a model goes to an .onnx file, not to {output}: name {output.with_suffix('.onnx')}, for example"
        )


def providers(text: str | None) -> list[str] | None:
    """Names between commas; None for None."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def names(text: str) -> list[str]:
    """Names between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def steps(text: str | None) -> str | list[str]:
    """What --allow names: "all", or names between commas; folding where it is not given."""
    named = ["fold"] if text is None else list(dict.fromkeys(names(text)))
    return "all" if named == ["all"] else named


def share(text: str) -> float:
    """0.3 of 0.3 and of 30%. Raises ArgumentTypeError."""
    try:
        return _share(text)
    except ValueError:
        meant = f": did you mean {text}%?" if text.replace(".", "", 1).isdigit() else ""
        raise argparse.ArgumentTypeError(
            f"give a number like 0.3 or a percentage like 30%, not '{text}'{meant}"
        ) from None


def rounding(text: str) -> int | str:
    """A whole number, or auto. Raises ArgumentTypeError."""
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"give a whole number like 8, or auto, not '{text}'") from None


def percentage(text: str) -> float:
    """25 of 25 and of 25%. Raises ArgumentTypeError, also for a bare 0.25, which can only be meant as a share."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"give a percentage like 25 or 25%, not '{text}'") from None
    if 0 < value < 1 and not text.endswith("%"):
        meant = f"did you mean {100 * value:g}%?"
        raise argparse.ArgumentTypeError(f"give a percentage like 25 or 25%, not '{text}': {meant}")
    return value


def _share(text: str) -> float:
    """Raises ValueError, also for a bare number that can only be meant in percent."""
    if text.endswith("%"):
        return float(text.removesuffix("%")) / 100
    if 2 <= float(text) <= 100:
        raise ValueError
    return float(text)


def numbers(option: str, text: str) -> list[float]:
    """Shares between commas. Raises RequestError."""
    try:
        return [_share(part.strip()) for part in text.split(",")]
    except ValueError:
        raise RequestError(f"{option} wants shares like .9,.7,.5 or 90%,70%,50%, not '{text}'") from None


def percent(option: str, value: float | None) -> float | None:
    """A share of 0 to 1 of a percentage. Raises RequestError, in percent, for one that is out of range."""
    if value is None:
        return None
    if not 0 < value <= 100:
        raise RequestError(f"{option} must be above 0 and at most 100 (percent), not {value:g}")
    return value / 100


def ratios(given: Sequence[str]) -> dict[str, float]:
    """{REGEX: R} of texts like REGEX=R. Raises RequestError."""
    found = list[tuple[str, float]]()
    for text in given:
        pattern, equals, value = text.rpartition("=")
        try:
            found.append((pattern, _share(value)))
        except ValueError:
            equals = ""
        if not equals or not pattern:
            raise RequestError(f"--group-ratio wants REGEX=R (like 'layers.7.*mlp=0.5'), not '{text}'")
    return _by_name("--group-ratio", found)


def shapes(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """{NAME: dimensions} of texts like NAME:D,D,... Raises RequestError."""
    found = list[tuple[str, tuple[int, ...]]]()
    for text in given:
        name, colon, dims = text.rpartition(":")
        try:
            found.append((name, tuple(int(d) for d in dims.replace("x", ",").split(","))))
        except ValueError:
            colon = ""
        if not colon or not name:
            raise RequestError(f"--input-shape wants NAME:D,D,... (like image:1,3,224,224), not '{text}'")
    return _by_name("--input-shape", found)


def _by_name(option: str, pairs: Sequence[tuple[str, T]]) -> dict[str, T]:
    """What an option that may be repeated says of each name. Raises RequestError where it says two things of one."""
    try:
        return once(pairs)
    except ValueError as error:
        raise RequestError(f"{option}: {error}: leave all but one out") from None


def dashes(arguments: Sequence[str]) -> list[str]:
    """Long options may be written with underscores."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    dashed = []
    for argument in arguments[:end]:
        name, equals, value = argument.partition("=")
        dashed.append(name.replace("_", "-") + equals + value if name.startswith("--") else argument)
    return [*dashed, *arguments[end:]]
