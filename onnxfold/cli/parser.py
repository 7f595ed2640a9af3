"""The parser of every command: argparse, with one line for what is wrong and what was meant."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

from ..options.choices import Quantization
from ..units import did_you_mean, readable
from .layout import Layout
from .streams import say

CODES = """\
exit codes: 0 success; 1 the result failed its checks and was not written, or it was written with a
lost output (only for a ratio or target you asked for); 2 bad request; 3 unreadable model; 4 nothing
to fold; 5 cannot quantize; 70 internal error; 129, 130, 143 interrupted
"""
FILES = frozenset(("-i", "-o", "-m", "--in", "--out", "--input", "--output", "--model"))
"""What other tools call files, which have no options here."""
KIND = re.compile(r"(u?int|fp|bf|float|q|w)\d.*|dynamic|static|half", re.IGNORECASE)
"""What can only be meant as a kind of quantization, though it may be none."""
DASHED = {"--preprocess": re.compile(r"-1-1(,.*)?")}
"""Options with values that begin with a dash, and these values: argparse would take them for options."""

_SEEN = "options_seen"  # among what is being parsed
KINDS = tuple(kind.value for kind in Quantization)
_MISSING = "the following arguments are required: "
_UNKNOWN = "unrecognized arguments: "


class Parser(argparse.ArgumentParser):
    """One line for what is wrong, and no guessing of options from their first letters."""

    def __init__(self, prog: str, usage: str, description: str) -> None:
        super().__init__(
            prog, usage=usage, description=description, epilog=CODES, formatter_class=Layout, allow_abbrev=False,
            add_help=False,
        )  # fmt: skip
        self._positionals.title = "files"
        self.register("action", None, _Once)
        self.register("action", "store", _Once)
        self.elsewhere: Callable[[str], str] = lambda _: ""
        """The command that has an option which this one lacks; '' for none."""
        self.left_out = set[str]()
        """Files that other commands take and this one does not, by their keys in a file of options."""
        self._given: Sequence[str] = ()

    def parsed(self, given: Sequence[str]) -> argparse.Namespace:
        """The values given; options may stand between files, unless the order is meant (`--`)."""
        self._given = given
        found = self.parse_args(given) if "--" in given else self.parse_intermixed_args(given)
        vars(found).pop(_SEEN, None)
        return found

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, of arguments in which every option has its value."""
        return super().parse_known_args(with_values(sys.argv[1:] if args is None else args), namespace)

    def _print_message(self, message: str, file: Any = None) -> None:
        """As argparse does, which would not say that something cannot be written. Raises RequestError."""
        if file is sys.stdout:
            say(message.rstrip("\n"))
        else:
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        message = self._unknown_first(plainly(message))
        self.exit(2, f"onnxfold: {readable(message)}{self.meant(message) or ' (try --help)'}\n")

    def _unknown_first(self, message: str) -> str:
        """`message`, or that an option is unknown, where it says that something is missing: that is easier to mend."""
        wrong = next((name for name in sorted(names_of(self._given)) if self._is_unknown(name)), "")
        return _UNKNOWN + wrong if wrong and message.startswith(_MISSING) else message

    def _is_unknown(self, name: str) -> bool:
        return name.startswith("--") and name != "--" and name not in self._option_string_actions

    def converted(self, action: argparse.Action, text: str) -> Any:
        """What `text` is behind an option or for a file. Raises ArgumentError."""
        return self._get_values(action, [text])

    @property
    def files(self) -> list[str]:
        """Where the files are found among what is parsed, in the order in which they are given."""
        return [action.dest for action in self._get_positional_actions()]

    def showing(self, options: Collection[str], said: Mapping[str, str]) -> Parser:
        """This parser, whose help shows these options only, and the files; all others are taken as before. `said`:
        other words for options and for titles of groups."""
        for action in self._actions:
            names = action.option_strings
            if names and not set(names) & set(options):
                action.help = argparse.SUPPRESS
            action.help = next((said[name] for name in names if name in said), action.help)
        for group in self._action_groups:
            group.title = said.get(group.title or "", group.title)
        return self

    def taking(self, files: Collection[str]) -> Parser:
        """This parser, which takes these files only; what the others would be is None."""
        for action in self._get_positional_actions():
            if action.metavar not in files:
                self._remove_action(action)
                self._positionals._group_actions.remove(action)
                self.set_defaults(**{action.dest: None})
                self.left_out.add(str(action.metavar).lower())
        return self

    def without_files(self) -> Parser:
        """This parser, to which files need not be given."""
        for action in self._get_positional_actions():
            action.nargs, action.required = "?", False
        return self

    def meant(self, message: str) -> str:
        """What an unknown option or choice is close to, in words; '' where it is close to nothing."""
        if found := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)$", message, re.DOTALL):
            return did_you_mean(found[1], re.findall(r"[\w|-]+", found[2]), "")
        if message.startswith(_MISSING) and self.prog != "onnxfold":
            return f": {(self.usage or self.prog).splitlines()[0]}"
        if not message.startswith(_UNKNOWN):
            return ""
        unknown = message.removeprefix(_UNKNOWN).split()
        name = next((one.partition("=")[0] for one in unknown if one.startswith("-")), "")
        if name in FILES or not name:
            files = " ".join(str(action.metavar) for action in self._get_positional_actions())
            only = " and writes no model" if files == "IN" else ""
            return f": files have no options, name {files} alone" if name else f": {self.prog} takes {files}{only}"
        if name[2:] in KINDS:
            return f": did you mean --quantize {name[2:]}?"
        if where := self.elsewhere(name):
            return f": that is an option of {where}"
        shown = [option for option, one in self._option_string_actions.items() if one.help != argparse.SUPPRESS]
        return did_you_mean(name, shown, "")


class _Once(argparse._StoreAction):
    """An option with a value, which may be given once: of two values, argparse would take the last."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        """As argparse does. Raises ArgumentError for an option that was there before."""
        before = vars(namespace).setdefault(_SEEN, set())
        if option_string is not None and self.dest in before:
            raise argparse.ArgumentError(self, "it is given more than once: leave all but one out")
        before.add(self.dest)
        super().__call__(parser, namespace, values, option_string)


def plainly(message: str) -> str:
    """What argparse says of a value, in the same words under every version of Python."""
    message = re.sub(r"invalid int value: (.*)", r"give a whole number, not \1", message)
    message = re.sub(r"invalid float value: (.*)", r"give a number, not \1", message)
    return re.sub(r"\(choose from .*\)$", lambda found: found[0].replace("'", ""), message)


def end_of_options(given: Sequence[str]) -> int:
    """Where `--` stands, behind which there are only files."""
    return given.index("--") if "--" in given else len(given)


def with_values(given: Sequence[str]) -> list[str]:
    """`given`, with a kind behind a --quantize that has none (what follows it may be a file), and with values that look
    like options behind an `=`."""
    end, found = end_of_options(given), list[str]()
    rest = iter(enumerate(given[:end]))
    for at, argument in rest:
        value = given[at + 1] if at + 1 < end else ""
        if argument == "--quantize" and value not in KINDS and not KIND.fullmatch(value):
            argument = f"--quantize={KINDS[0]}"
        elif argument in DASHED and DASHED[argument].fullmatch(value):
            argument = f"{argument}={next(rest)[1]}"
        found.append(argument)
    return [*found, *given[end:]]


def names_of(given: Sequence[str]) -> set[str]:
    """The long options that are given."""
    return {argument.partition("=")[0] for argument in given[: end_of_options(given)]}
