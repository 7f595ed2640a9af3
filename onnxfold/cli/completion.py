"""``onnxfold completion bash``: the script by which a shell completes commands, options, choices and files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from copy import copy
from typing import Any

from . import cache, compare, fold, fuse, layers, report, sweep
from .arguments import add_last
from .parser import Parser
from .parsing import a_file, file_text
from .streams import say

SHELLS = ("bash", "zsh", "fish")
ABOUT = """\
Prints what makes a shell complete the commands, options, choices and files of onnxfold. Put it where your shell looks:

  onnxfold completion bash > ~/.local/share/bash-completion/completions/onnxfold
  onnxfold completion zsh > ~/.zfunc/_onnxfold  (with fpath+=~/.zfunc before compinit in ~/.zshrc)
  onnxfold completion fish > ~/.config/fish/completions/onnxfold.fish
"""


def parser() -> Parser:
    """How the command is called."""
    made = Parser("onnxfold completion", f"onnxfold completion {'|'.join(SHELLS)}", ABOUT)
    made.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
    add_last(made, runs=False)
    return made


def run(options: argparse.Namespace) -> int:
    """Do what is asked, and return the exit code."""
    import shtab  # of use to nobody else

    say(shtab.complete(_everything(shtab.FILE), shell=options.shell))
    return 0


def _everything(files: Any) -> argparse.ArgumentParser:
    """All commands in one parser, as shtab wants them; `files`: what completes an argument that is a file."""
    folds = (fold.parser(), fuse.parser())
    made = _merged("onnxfold", files, *(_options(one) for one in folds))
    commands: Mapping[str, tuple[Parser, ...]] = {
        "fold": folds, "inspect": folds[:1], "share": folds[1:], "drop": folds[1:], "quantize": folds[:1],
        "sweep": (sweep.parser(),), "compare": (compare.parser(),),
        "layers": (layers.parser(),), "report": (report.parser(),), "cache": (cache.parser(),),
        "completion": (parser(),),
    }  # fmt: skip
    group = made.add_subparsers()
    for name, parsers in commands.items():
        into = group.add_parser(name, help=str(parsers[0].description).partition("\n")[0], add_help=False)
        _merged(name, files, *(one._actions for one in parsers), into=into)
    return made


def _options(one: Parser) -> list[argparse.Action]:
    return [action for action in one._actions if action.option_strings]


def _merged(
    prog: str, files: Any, *several: list[argparse.Action], into: argparse.ArgumentParser | None = None
) -> argparse.ArgumentParser:
    """A parser with all actions of several, each once."""
    made, seen = into or argparse.ArgumentParser(prog, add_help=False), set[str]()
    for action in (action for actions in several for action in actions):
        name = action.option_strings[-1] if action.option_strings else action.dest
        if name not in seen:
            one: Any = copy(action)
            if action.type in (a_file, file_text) or name == "--calibration":
                one.complete = files
            made._add_action(one)
            seen.add(name)
    return made
