"""The commands by name, also those that are spelled with options, and which of them arguments call."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Protocol

from ..errors import RequestError
from . import cache, compare, completion, fold, fuse, layers, report, sweep
from .parser import Parser, names_of
from .spelled import OWN_HELP


class Command(Protocol):
    """A module that knows how a command is called, and runs it."""

    def parser(self) -> Parser: ...
    def run(self, options: argparse.Namespace) -> int: ...


COMMANDS: Mapping[str, Command] = {
    "cache": cache,
    "compare": compare,
    "completion": completion,
    "layers": layers,
    "report": report,
    "sweep": sweep,
}
MODEL_FREE: Collection[Command] = (cache, completion, report)
"""Commands that run no model, and need no onnxruntime for that."""
SPELLED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "fold": (), "inspect": (("--inspect",),), "share": (("--fuse=mean",),), "drop": (),
    "quantize": (("--ratio=0",), ("--quantize=int8",)),
}  # fmt: skip
"""Commands that are spelled with options: each stands for the first of a list where none of the list is given."""


def spelled(name: str, given: Sequence[str], kept: Collection[str]) -> list[str]:
    """The arguments of a command that is spelled with options. Raises RequestError for one that lacks its amount."""
    there = {*names_of(given), *kept}
    if name == "drop" and there.intersection(("--help", "-h")):
        return ["--drop-blocks=1", *given]
    if name == "drop" and "--drop-blocks" not in there:
        raise RequestError("say how many residual blocks go, like onnxfold drop IN OUT --drop-blocks 25%")
    if name == "quantize" and (folding := next((one for one in fold.AMOUNTS if one in names_of(given)), "")):
        raise RequestError(f"quantize folds no channels: to fold too, say onnxfold IN OUT {folding} ... --quantize")
    if name == "inspect":  # also where a file of options for folds says that it is not wanted
        return ["--inspect", *given]
    added = [one for one, *others in SPELLED[name] if not there.intersection((one.partition("=")[0], *others))]
    return [*added, *given]


def elsewhere(option: str) -> str:
    """The command that has an option; '' for none."""
    own = {"onnxfold IN OUT": fold, "onnxfold IN OUT --fuse HOW": fuse}
    all_of_them: Mapping[str, Command] = {**own, **{f"onnxfold {name}": command for name, command in COMMANDS.items()}}
    found = (name for name, command in all_of_them.items() if option in command.parser()._option_string_actions)
    return next(found, "")


def check_place(given: Sequence[str]) -> None:
    """Raise RequestError for a command behind a file, and for a word before files that is no command."""
    words = list(takewhile(lambda word: not word.startswith("-"), given))
    known = {*COMMANDS, *SPELLED}
    if not words or words[0] in {*known, "help"}:
        return
    if (late := next((word for word in words[1:] if word in known and not Path(word).exists()), "")) != "":
        raise RequestError(f"'{late}' is a command, and commands come first: onnxfold {late} {words[0]}")
    first, near = words[0], get_close_matches(words[0], known, 1)
    if first.isalpha() and len(words) > 1 and words[1].endswith(".onnx") and not near and not Path(first).exists():
        raise RequestError(
            f"'{first}' is neither a command nor a file: commands are {', '.join(sorted(known))}; to make a smaller "
            "model, say onnxfold IN OUT"
        )


def chosen(given: Sequence[str], kept: Collection[str] = ()) -> tuple[Command, Sequence[str]]:
    """The command that arguments call, and the arguments that are left for it; `kept`: options that a file sets. Raises
    RequestError for a first one that is neither a command nor a file, and close to a command."""
    first = given[0] if given else ""
    check_place(given)
    if first in COMMANDS:
        return COMMANDS[first], given[1:]
    if first == "help" and not Path(first).exists():
        return chosen([*given[1:], "--help"])
    if first in SPELLED:
        given = spelled(first, given[1:], kept)
    elif first.isalpha() and (near := get_close_matches(first, [*COMMANDS, *SPELLED], 1)) and not Path(first).exists():
        raise RequestError(f"'{first}' is neither a command nor a file: did you mean onnxfold {near[0]}?")
    elif first == "version" and not Path(first).exists():
        raise RequestError("'version' is neither a command nor a file: did you mean onnxfold --version?")
    base = fuse if fuse.WHOLE_LAYERS.intersection((*names_of(given), *kept)) else fold
    own = OWN_HELP.get(first)
    return (own if own is not None and own.base is base else base), given
