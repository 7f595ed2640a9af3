"""``onnxfold completion bash``: the script by which a shell completes commands, options, choices and files."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from .. import __version__
from ..options.choices import Step
from ..options.preprocess import PRESETS
from . import cache, compare, fold, fuse, layers, report, sweep
from .arguments import USAGE, add_last
from .parser import Parser
from .parsing import a_file, file_text
from .spelled import OWN_HELP
from .streams import say

WHERE: Mapping[str, Sequence[str]] = {
    "bash": (
        "mkdir -p ~/.local/share/bash-completion/completions",
        "onnxfold completion bash > ~/.local/share/bash-completion/completions/onnxfold",
        "(where bash-completion is installed; else put into ~/.bashrc:)",
        'eval "$(onnxfold completion bash)"',
    ),
    "zsh": (
        "mkdir -p ~/.zfunc && onnxfold completion zsh > ~/.zfunc/_onnxfold",
        "(and put into ~/.zshrc, before compinit:)",
        "fpath+=~/.zfunc; autoload -Uz compinit; compinit",
    ),
    "fish": (
        "mkdir -p ~/.config/fish/completions",
        "onnxfold completion fish > ~/.config/fish/completions/onnxfold.fish",
    ),
}
"""How a script is installed: commands, and words between them."""
SHELLS = tuple(WHERE)
ALIKE = ("sh", "ash", "dash", "ksh")
VALUES: Mapping[str, Sequence[str]] = {
    "--allow": ("all", *(step.value for step in Step)),
    "--preprocess": tuple(PRESETS),
    "--providers": ("cpu", "cuda", "tensorrt"),
    "--round-to": ("auto", "1", "8", "16", "32"),
}
"""What options may be that take more than the choices they have."""
ABOUT = """\
Prints what makes a shell complete the commands, options, choices and files of onnxfold. Put it where your shell looks:

  onnxfold completion bash > ~/.local/share/bash-completion/completions/onnxfold
  onnxfold completion zsh > ~/.zfunc/_onnxfold  (with fpath+=~/.zfunc before compinit in ~/.zshrc)
  onnxfold completion fish > ~/.config/fish/completions/onnxfold.fish
"""


def parser() -> Parser:
    """How the command is called."""
    made = Parser("onnxfold completion", f"onnxfold completion {'|'.join(SHELLS)}", ABOUT)
    made.add_argument("shell", metavar="SHELL", type=a_shell, choices=SHELLS, help=", ".join(SHELLS))
    add_last(made, runs=False)
    return made


def a_shell(text: str) -> str:
    """The name of a shell, also of its path ($SHELL). Raises ArgumentTypeError for shells that are close to bash."""
    name = Path(text).name.lower()
    if name in ALIKE:
        raise argparse.ArgumentTypeError(f"{name} cannot complete options: did you mean bash?")
    return name


def run(options: argparse.Namespace) -> int:
    """Do what is asked, and return the exit code."""
    import shtab  # of use to nobody else

    script = shtab.complete(_everything(shtab.FILE), shell=options.shell)
    say("\n".join(_headed(_with_files(script, options.shell).splitlines(), options.shell)))
    return 0


def _with_files(script: str, shell: str) -> str:
    """shtab knows commands, and none that begins with its files: ``onnxfold IN OUT``, which takes what fold takes."""
    if shell == "bash":
        return script.replace("complete -o bashdefault ", "complete -o bashdefault -o default ")
    if shell == "fish":
        return f"{script}\ncomplete -c onnxfold -n _shtab_onnxfold_using -F\n"
    fold = re.search(r"^( +)fold\)(.*)$", script, re.MULTILINE)
    others = re.compile(r"^( +)esac\n +esac$", re.MULTILINE)
    if fold is not None:
        script = others.sub(lambda found: f"{fold[1]}*){fold[2]}\n{found[0]}", script)
    return script.replace("_describe 'onnxfold commands' _commands", "_describe 'onnxfold commands' _commands; _files")


def _headed(script: Sequence[str], shell: str) -> Iterator[str]:
    """A script that says how it is installed, in place of where shtab would put it."""
    below = next(at for at, line in enumerate(script) if not line.startswith("#") and line)
    yield from (line for line in script[:below] if line.startswith("#compdef"))  # which zsh looks for in the first line
    yield f"# What {shell} needs to complete onnxfold ({__version__}); made with shtab. To install it:"
    yield from (f"#   {line}" for line in WHERE[shell])
    yield ""
    yield from script[below:]


def _everything(files: Any) -> argparse.ArgumentParser:
    """All commands in one parser, as shtab wants them; `files`: what completes an argument that is a file."""
    folds = (fold.parser(), fuse.parser())
    made = _merged("onnxfold", files, *(_options(one) for one in folds))
    commands: Mapping[str, tuple[Parser, ...]] = {
        "fold": folds, **{name: (one.parser(),) for name, one in OWN_HELP.items()},
        "sweep": (sweep.parser(),), "compare": (compare.parser(),),
        "layers": (layers.parser(),), "report": (report.parser(),), "cache": (cache.parser(),),
        "completion": (parser(),),
    }  # fmt: skip
    group = made.add_subparsers()
    for name, parsers in commands.items():
        into = group.add_parser(name, help=_summary(name), add_help=False)
        _merged(name, files, *(one._actions for one in parsers), into=into)
    return made


def _summary(name: str) -> str:
    """What a command does, as the usage of all says it."""
    found = re.search(rf"onnxfold {'IN OUT' if name == 'fold' else name} .*?  +(.*)", USAGE)
    return "" if found is None else found[1]


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
            one.choices = VALUES.get(name, action.choices)
            made._add_action(one)
            seen.add(name)
    return made
