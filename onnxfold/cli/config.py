"""--config FILE and --print-config: options kept in a file, under the names that they have on the command line."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..options.json_source import once
from ..units import did_you_mean
from .parser import Parser, end_of_options, names_of, plainly

OPTION, PRINTING = "--config", "--print-config"
ENDINGS = (".yaml", ".yml", ".json")
_OUTSIDE = frozenset(("config", "print_config", "help", "version"))  # options that mean nothing in a file


@dataclass(frozen=True)
class Config:
    """What a file asks for, by the options' names without dashes; files by theirs in the help ("in", "out")."""

    path: str
    values: Mapping[str, object]

    @property
    def names(self) -> set[str]:
        """The long options that it sets."""
        return {f"--{key}" for key, value in self.values.items() if value is not None}

    def words(self, parser: Parser, given: Sequence[str]) -> list[str]:
        """The arguments `given` to a command and those of the file, as one command line: options of the file stand
        first, without those that are given too; files that are not given stand last. Raises RequestError, naming file
        and key."""
        actions, there = _actions(parser), names_of(given)
        options, files = list[str](), dict[str, list[str]]()
        for key, value in self.values.items():
            action = actions.get(key)
            if action is None and key in parser.left_out:
                continue
            if action is None:
                known = did_you_mean(key, actions)
                raise RequestError(f"{self.path}: '{key}' is no option of {parser.prog}{known}")
            texts = self._texts(parser, action, key, value)
            if not action.option_strings:
                files[action.dest] = texts
            elif f"--{key}" not in there:
                options += [f"--{key}" if action.nargs == 0 else f"--{key}={text}" for text in texts]
        behind = _missing(parser, given, files)
        return [*options, *given, *(["--"] if any(word.startswith("-") for word in behind) else []), *behind]

    def blamed(self, message: str, given: Sequence[str]) -> str:
        """`message`, with the keys of the file that it speaks of."""
        ours = self.names - names_of(given)
        keys = [f"'{option[2:]}'" for option in dict.fromkeys(re.findall(r"--[a-z-]+", message)) if option in ours]
        return f"{message} ({' and '.join(keys)} in {self.path})" if keys else message

    def _texts(self, parser: Parser, action: argparse.Action, key: str, value: object) -> list[str]:
        try:
            texts = list(_as_texts(action, value))
            for text in texts if action.nargs != 0 else ():
                parser.converted(action, text)
        except argparse.ArgumentError as error:
            meant = parser.meant(error.message)
            raise RequestError(f"{self.path}: '{key}': {plainly(error.message)}{meant}") from None
        except ValueError as error:
            raise RequestError(f"{self.path}: '{key}' {error}") from None
        return texts


def config_of(given: Sequence[str]) -> tuple[Config | None, list[str]]:
    """The file that --config names among the arguments of a command, and the arguments without it. Raises RequestError
    for a file that cannot be read, or for several."""
    end, paths, left = end_of_options(given), list[str](), list[str]()
    words = iter(given[:end])
    for word in words:
        name, equals, path = word.partition("=")
        if name != OPTION:
            left.append(word)
        elif path := path if equals else next(words, ""):
            paths.append(path)
        else:
            raise RequestError(f"{OPTION} wants a file, like fold.yaml")
    if len(paths) > 1:
        raise RequestError(f"give one {OPTION}, not {len(paths)}: {' and '.join(paths)}")
    return (read(paths[0]) if paths else None), [*left, *given[end:]]


def read(path: str) -> Config:
    """A file of options in YAML or JSON. Raises RequestError."""
    if Path(path).suffix.lower() not in ENDINGS:
        raise RequestError(f"options are kept in a file that ends in {', '.join(ENDINGS)}, not in {path}")
    try:
        if Path(path).exists() and not Path(path).is_file():  # opening a pipe would wait for who writes to it
            raise RequestError(f"cannot read the options in {path}: it is not a regular file")
        text = Path(path).read_text(encoding="utf-8")
        found = json.loads(text, object_pairs_hook=once) if path.lower().endswith(".json") else _yaml(text)
    except OSError as error:
        raise RequestError(f"cannot read the options in {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path} cannot be read ({' '.join(str(error).split())})") from error
    if found is None:
        found = {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise RequestError(f"{path} must hold options by name, one a line, like 'ratio: 0.3'")
    try:
        return Config(path, once([(key.replace("_", "-"), value) for key, value in found.items()]))
    except ValueError as error:
        raise RequestError(f"{path} cannot be read ({error})") from error


def printed(parser: Parser, options: argparse.Namespace) -> str:
    """The options of a command as YAML that `read` takes; those that are not set as comments, with what for."""
    import yaml  # slow to import

    actions = _actions(parser)
    found = {key: _plain(getattr(options, action.dest)) for key, action in actions.items()}
    kept = {key: value for key, value in found.items() if value is not None and value != []}
    text: str = yaml.safe_dump(kept, sort_keys=False, allow_unicode=False, width=4096)
    left = [_comment(key, action) for key, action in actions.items() if key not in kept and _shown(action)]
    return "\n".join([
        f"# {parser.prog} {OPTION} FILE; options on the command line win over those in the file.",
        text.rstrip("\n"), *(["# Not set:"] if left else []), *left, "",
    ])  # fmt: skip


def _shown(action: argparse.Action) -> bool:
    return action.help != argparse.SUPPRESS


def _comment(key: str, action: argparse.Action) -> str:
    """An option that is not set, and what it is for."""
    said = " ".join(str(action.help or "").split())
    return f"# {f'{key}: {action.metavar}':<24} {said}"


def _yaml(text: str) -> Any:
    """What a document says. Raises ValueError, also where a key stands twice, of which YAML would take the last one."""
    import yaml  # slow to import

    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
                line = event.start_mark.line + 1
                raise ValueError(f"line {line}: plain values only, no tags (!!) and no aliases (*)")
        _check_keys(yaml.compose(text, yaml.SafeLoader))
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        raise ValueError(f"line {mark.line + 1}: {problem}" if mark is not None else problem) from error


def _check_keys(node: Any) -> None:
    """Raises ValueError where a key of a document stands twice, at any depth."""
    import yaml  # slow to import

    if isinstance(node, yaml.MappingNode):
        once([(str(key.value), value) for key, value in node.value])
    inside = [value for _, value in node.value] if isinstance(node, yaml.MappingNode) else []
    for one in node.value if isinstance(node, yaml.SequenceNode) else inside:
        _check_keys(one)


def _actions(parser: Parser) -> dict[str, argparse.Action]:
    """All that a file may set."""
    found = {}
    for action in parser._actions:
        long = [option[2:] for option in action.option_strings if option.startswith("--")]
        if action.dest not in _OUTSIDE:
            found[long[0] if long else str(action.metavar or action.dest).lower()] = action
    return found


def _missing(parser: Parser, given: Sequence[str], files: Mapping[str, list[str]]) -> list[str]:
    """The files that the command line does not name, in their order."""
    if not files:
        return []
    there = vars(parser.without_files().parsed(given))
    return [text for dest in parser.files if there[dest] is None for text in files.get(dest, [])]


def _as_texts(action: argparse.Action, value: object) -> Iterable[str]:
    """What stands behind an option on the command line, once for each time that it is given; '' for a switch. Raises
    ValueError, in words behind the key."""
    metavar = str(action.metavar or "")
    if value is None:
        return
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError(f"is a switch: write true or false, not {value!r}")
        if value:
            yield ""
    elif isinstance(action, argparse._AppendAction):
        between = "=" if "=" in metavar else ":" if ":" in metavar else ""
        if isinstance(value, Mapping) and between:
            value = [f"{key}{between}{_text(one, True)}" for key, one in value.items()]
        for one in value if isinstance(value, list) else [value]:
            yield _text(one)
    elif isinstance(value, bool) and metavar.startswith("["):  # the first choice where none is named
        if value:
            yield next(iter(action.choices or ()))
    else:
        yield _text(value, "," in metavar)


def _text(value: object, several: bool = False) -> str:
    if isinstance(value, list) and several:
        return ",".join(_text(one) for one in value)
    if isinstance(value, str):
        if "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)):
            raise ValueError(f"holds a character that no option may have: {value!a}")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be {'one or several values' if several else 'one value'}, not {value!r}")
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
