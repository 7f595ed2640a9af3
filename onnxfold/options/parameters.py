"""What every parameter may be: one table, read by the checks, by the help of the command line and by
docs/options.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..errors import RequestError
from ..units import brief, did_you_mean
from . import accept
from .accept import Accept
from .choices import SHARES, Clusterer, Distance, Effort, Fusion, Method, Quantization, Recovery, Step
from .devices import Device
from .preprocess import PRESETS

MOST_JOBS = 1024
_LONGEST = 60  # characters of a wrong value that are shown


@dataclass(frozen=True)
class Parameter:
    """One parameter as Python spells it: what it may be, in words, and what it is for, in one line."""

    name: str
    accept: Accept
    may_be: str
    purpose: str


def _one_of(choices: type[Enum]) -> str:
    return "one of " + ", ".join(repr(one.value) for one in choices)


_KEPT = "a number above 0 and at most 1"
_ALL = (
    Parameter(
        "ratio", accept.optional(accept.number(0, 1, below=True)), "a number of at least 0 and below 1",
        "share of the channels to remove from every group",
    ),
    Parameter(
        "target_params", accept.optional(accept.number(0, 1, above=True)), _KEPT, "share of the parameters to keep"
    ),
    Parameter(
        "target_macs", accept.optional(accept.number(0, 1, above=True)), _KEPT, "share of the multiply-adds to keep"
    ),
    Parameter(
        "target_size", accept.optional(accept.number(0, 1, above=True)), _KEPT, "share of the file size to keep"
    ),
    Parameter(
        "target_latency", accept.optional(accept.number(0, 1, above=True)), _KEPT,
        "share of the latency to keep, as measured on this machine",
    ),
    Parameter(
        "max_error", accept.optional(accept.number(0, 1)), "a number from 0 to 1",
        "largest relative error of the outputs",
    ),
    Parameter(
        "min_agreement", accept.optional(accept.number(0, 1)), "a number from 0 to 1",
        "share of the samples that keep their top class",
    ),
    Parameter(
        "max_drop", accept.optional(accept.number(0, math.inf)), "a number of at least 0",
        "how far your own metric may fall, in its own units",
    ),
    Parameter(
        "metric", accept.optional(accept.function), "FILE.py:FUNCTION, or a function, of the path of a model",
        "your own metric of a model; higher is better",
    ),
    Parameter(
        "metric_timeout", accept.number(0, 10**7, above=True), "a number of seconds above 0",
        "seconds that FILE.py:FUNCTION may take for one model",
    ),
    Parameter(
        "group_ratios", accept.optional(accept.group_ratios),
        "ratios of at least 0 and below 1 by regular expression, like {'mlp': 0.5}",
        "a different ratio for these groups; alone, only these groups shrink",
    ),
    Parameter(
        "plan", accept.optional(accept.plan), "a Plan, or widths by group like {'conv1': 48}",
        "the widths of a plan that was made before, and edited since",
    ),
    Parameter("method", accept.choice(Method), _one_of(Method), "how channels are chosen"),
    Parameter("clusterer", accept.choice(Clusterer), _one_of(Clusterer), "which clustering implementation to use"),
    Parameter(
        "include", accept.patterns, "a regular expression or several", "only these groups, or groups of these nodes"
    ),
    Parameter("exclude", accept.patterns, "a regular expression or several", "not these groups or nodes"),
    Parameter(
        "round_to", accept.rounding, "a whole number of at least 1, or 'auto'",
        "keep multiples of N channels; auto: of the kernels' block size",
    ),
    Parameter(
        "device", accept.optional(accept.choice(Device)), _one_of(Device), "target hardware: widths follow its kernels"
    ),
    Parameter(
        "fold_heads", accept.flag, "True or False", "also fold key-value cache heads; inputs and outputs change shape"
    ),
    Parameter(
        "fold_residual", accept.flag, "True or False", "also fold residual streams under norms (lossy, measured)"
    ),
    Parameter(
        "calibration", accept.anything, "arrays by input name, a path, a reader or an iterable of feeds",
        "your inputs: .npz, .npy, or a folder of those or of images",
    ),
    Parameter("samples", accept.integer(1, 2**31), "a whole number of at least 1", "how many of your inputs to use"),
    Parameter(
        "preprocess", accept.optional(accept.preprocess),
        f"a Preprocess, one of {', '.join(map(repr, PRESETS))}, the path of a preprocessor_config.json, or "
        "MEAN,STD,LAYOUT like '0.485:0.456:0.406,0.229:0.224:0.225,nchw'",
        "how to turn image pixels into numbers",
    ),
    Parameter("effort", accept.choice(Effort), _one_of(Effort), "how much time may be spent"),
    Parameter("synthetic", accept.optional(accept.path), "a path", "a file to keep the synthetic inputs in"),
    Parameter("recovery", accept.choice(Recovery), _one_of(Recovery), "how the merge is repaired"),
    Parameter("refine", accept.flag, "True or False", "train the result to match the original; needs no labels"),
    Parameter(
        "steps", accept.optional(accept.integer(1, 10**7)), "a whole number of at least 1",
        "training steps (default: by effort and size; at most 800)",
    ),
    Parameter(
        "quantize", accept.quantization, f"True, False or {_one_of(Quantization)}",
        "then quantize with onnxruntime (INT8 uses the same inputs)",
    ),
    Parameter(
        "providers", accept.optional(accept.texts), "a name or several, like 'cpu' or ['cpu', 'cuda']",
        "where to run (default: cpu, and cuda if available)",
    ),
    Parameter(
        "input_shapes", accept.optional(accept.shapes), "shapes by input name, like {'image': (1, 3, 224, 224)}",
        "shapes for dynamic inputs",
    ),
    Parameter("seed", accept.integer(0, 2**32 - 1), f"a whole number from 0 to {2**32 - 1}", "same seed, same file"),
    Parameter(
        "threads", accept.integer(0, MOST_JOBS), f"a whole number from 0 (all) to {MOST_JOBS}", "for clustering"
    ),
    Parameter("latency", accept.flag, "True or False", "measure latencies too"),
    Parameter(
        "latency_command", accept.optional(accept.command), "a command like 'ssh pi bench {model}'",
        "measure latency by a command that prints milliseconds, on another device",
    ),
    Parameter(
        "latency_timeout", accept.number(0, 10**7, above=True), "a number of seconds above 0",
        "seconds that this command may take for one model",
    ),
    Parameter("output", accept.optional(accept.path), "a path", "the file to write"),
    Parameter("save_plan", accept.optional(accept.path), "a path", "a file to write the widths to, to edit them"),
    Parameter("external_data", accept.flag, "True or False", "store the weights in a file beside the output"),
    Parameter(
        "keep_bn", accept.flag, "True or False", "keep BatchNormalization after convolutions, for further training"
    ),
    Parameter("resume", accept.flag, "True or False", "continue an interrupted run"),
    Parameter(
        "allow_unmeasured", accept.flag, "True or False", "write the result even if nothing could run it"
    ),
    Parameter("provenance", accept.flag, "True or False", "say in the result's metadata where it comes from"),
    Parameter(
        "max_memory", accept.optional(accept.integer(1, 2**63 - 1)), "a number of bytes",
        "models that need more memory are streamed",
    ),
    Parameter(
        "jobs", accept.integer(1, MOST_JOBS), f"a whole number from 1 to {MOST_JOBS}", "groups to merge at a time"
    ),
    Parameter(
        "scheduler", accept.text, "an address like 'tcp://127.0.0.1:8786'", "a Dask cluster whose workers merge groups"
    ),
    Parameter(
        "at", accept.shares, "one share or several, each above 0 and at most 1, like [0.9, 0.7, 0.5]",
        f"shares of the multiply-adds to keep (default {', '.join(f'{share:g}' for share in SHARES)})",
    ),
    Parameter(
        "allow", accept.steps, f"'all', or several of {', '.join(repr(step.value) for step in Step)}",
        "steps to try, alone and combined",
    ),
    Parameter("how", accept.optional(accept.choice(Fusion)), _one_of(Fusion), "how weights are combined"),
    Parameter("distance", accept.choice(Distance), _one_of(Distance), "how the similarity of layers is measured"),
    Parameter(
        "share", accept.optional(accept.number(0, 1, above=True)), _KEPT,
        "share of the layers that give up their own weights",
    ),
    Parameter(
        "drop_blocks", accept.optional(accept.blocks), "a number of blocks or a percentage, like 3 or '25%'",
        "drop this many residual blocks, the least useful first",
    ),
    Parameter("whole", accept.flag, "True or False", "compare whole residual blocks, not single layers"),
    Parameter("align", accept.flag, "True or False", "permute channels first, so that layers line up"),
)  # fmt: skip
PARAMETERS: Mapping[str, Parameter] = {one.name: one for one in _ALL}


def checked(name: str, value: object, spelled: str | None = None) -> Any:
    """`value` as parameter `name` wants it. Raises RequestError, naming the parameter as it is `spelled` (default: so).

    >>> checked("ratio", "0.3")
    Traceback (most recent call last):
    ...
    onnxfold.errors.RequestError: `ratio` must be a number of at least 0 and below 1, not '0.3' (a str)
    """
    parameter = PARAMETERS[name]
    try:
        return parameter.accept(value)
    except (ValueError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split()) if type(error) is ValueError and str(error).startswith("'") else ""
        if " is not a valid " in reason:  # of an enum: its own words
            reason = ""
    raise RequestError(
        f"`{spelled or name}` must be {parameter.may_be}" + (f": {reason}" if reason else f", not {shown(value)}")
    )


def given_path(name: str, value: object) -> str:
    """A path that must be given. Raises RequestError, naming the parameter `name`."""
    found = checked("output", value, name)
    if found is None:
        raise RequestError(f"`{name}` must be a path, not {shown(value)}")
    return str(found)


def unknown(name: str, known: Iterable[str], where: str) -> RequestError:
    """The error for a parameter that there is not."""
    return RequestError(f"{where} has no `{name}`{did_you_mean(name, known, '`')}")


def mapping(name: str, value: object) -> Mapping[str, Any]:
    """`value` if it is a mapping with names for keys. Raises RequestError, naming the parameter `name`."""
    if not isinstance(value, Mapping):
        raise RequestError(f"`{name}` must be a mapping, not {shown(value)}")
    for key in value:
        if not isinstance(key, str):
            raise RequestError(f"`{name}` must have names for keys, not {shown(key)}")
    return value


def shown(value: object) -> str:
    """A wrong value in one short line, with its type."""
    written = brief(value, _LONGEST + 1)
    short = written if len(written) <= _LONGEST else written[: _LONGEST - 3] + "..."
    kind = type(value).__name__
    return short if isinstance(value, int | float) and not isinstance(value, bool) else f"{short} (a {kind})"
