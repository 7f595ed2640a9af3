"""Messages name parameters as Python spells them, in backquotes; the command line shows its own options instead."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterable, Mapping

from ..options.choices import Step
from ..options.parameters import PARAMETERS

_ALIKE = (
    "ratio", "target_params", "target_macs", "target_size", "target_latency", "max_error", "min_agreement", "round_to",
    "device", "include", "exclude", "fold_heads", "fold_residual", "method", "recovery", "clusterer", "effort",
    "calibration", "samples",
    "preprocess", "synthetic", "seed", "threads", "refine", "steps", "quantize", "max_memory", "jobs", "scheduler",
    "resume", "keep_bn", "allow_unmeasured", "providers", "distance", "metric", "metric_timeout", "max_drop",
    "plan", "save_plan", "share", "drop_blocks", "at", "allow", "inspect", "latency_command",
    "latency_timeout",
)  # fmt: skip
OPTIONS: Mapping[str, str] = {
    **{name: f"--{name.replace('_', '-')}" for name in _ALIKE},
    "align": "--no-align",
    "external_data": "--save-as-external-data",
    "group_ratios": "--group-ratio",
    "how": "--fuse",
    "input_shapes": "--input-shape",
    "output": "OUT",
    "provenance": "--no-provenance",
    "whole": "--whole-blocks",
}
"""What the command line calls each parameter (and each function, where an option stands for it)."""

_MAY_BE: Mapping[str, str] = {
    "allow": f"all, or several of {', '.join(step.value for step in Step)} with commas between",
    "at": "shares above 0 and at most 1, like .9,.7,.5 or 90%,70%,50%",
    "drop_blocks": "a number of blocks or a percentage, like 3 or 25%",
    "exclude": "a regular expression",
    "group_ratios": "REGEX=R with R of at least 0 and below 1, like 'layers.7.*mlp=0.5'",
    "include": "a regular expression",
    "input_shapes": "NAME:D,D,... with lengths of at least 0, like image:1,3,224,224",
    "metric": "FILE.py:FUNCTION",
    "providers": "names with commas between, like cpu,cuda",
    "round_to": "a whole number of at least 1, or auto",
}
"""What parameters may be as the command line writes them, where Python writes them otherwise."""

_REPEATED = ("include", "exclude")  # given once for each value
_SWITCHES: Mapping[str, bool] = {
    **dict.fromkeys(
        ("external_data", "fold_heads", "fold_residual", "refine", "resume", "whole", "allow_unmeasured", "keep_bn"),
        True,
    ),
    "align": False,
    "provenance": False,
}
"""Parameters whose option takes no value, and the one that the option stands for."""

# Names from models and files stand in '...': what looks like a parameter in there is none.
_NAMED = re.compile(r"(?<!\w)'[^']*'(?!\w)|`(?P<name>\w+)(?:=(?P<value>[^`]+))?`")


def as_options(text: str) -> str:
    """`text` with the parameters in it spelled as options: `max_error` as --max-error, `ratio=0.1` as --ratio 0.1.

    Only whole words in backquotes that are parameters of onnxfold change, and only outside '...' quotes.
    """
    return _NAMED.sub(lambda found: _option(found["name"], found["value"]) or found[0], _without_python(text))


def _without_python(text: str) -> str:
    """What a parameter may be, and the wrong value, as they stand on the command line: without quotes, brackets and
    types."""
    found = re.match(r"`(?P<name>\w+)` must be ", text)
    if found is None or found["name"] not in PARAMETERS:
        return text
    name, rest = found["name"], text[found.end() :]
    usual = PARAMETERS[name].may_be
    if name in _MAY_BE and rest.startswith(usual):
        rest = _MAY_BE[name] + rest[len(usual) :]
    rest = re.sub(r"(, not )\[(.*)\] \(a list\)$", r"\1\2", rest, flags=re.DOTALL)
    return found[0] + re.sub(r" \(a str\)$", "", rest)


def _option(name: str | None, value: str | None) -> str | None:
    """One parameter as the option that stands for it; None where there is none."""
    option = None if name is None else OPTIONS.get(name)
    if name is None or option is None or value is None:
        return option
    try:
        given: object = ast.literal_eval(value)
    except (SyntaxError, TypeError, ValueError):
        return None
    if name == "quantize" and isinstance(given, bool):
        return option if given else None
    if name in _SWITCHES:
        return option if given is _SWITCHES[name] else None
    words = (shlex.quote(str(one)) for one in _values(name, given))
    return " ".join(words if name == "output" else (f"{option} {word}" for word in words))


def _values(name: str, given: object) -> Iterable[object]:
    """A value as it stands behind the option; several where the option is given once for each."""
    if name == "share" and isinstance(given, int | float):
        return [f"{100 * given:g}"]  # percent
    if name == "input_shapes" and isinstance(given, Mapping):
        return [f"{key}:{','.join(map(str, shape))}" for key, shape in given.items()]
    if name == "group_ratios" and isinstance(given, Mapping):
        return [f"{pattern}={ratio}" for pattern, ratio in given.items()]
    if isinstance(given, list | tuple):
        return given if name in _REPEATED else [",".join(map(str, given))]
    return [given]
