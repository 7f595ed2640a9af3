"""What reports say of the quality of a result, in words."""

from __future__ import annotations

import re

from ..analysis.costs import Size
from ..evaluation.verdict import Check
from ..units import change, in_bytes, in_percent

PEAK = "peak memory (est.)"
ADVICE = "pass `calibration` for an error you can rely on"
_ONE, _SINGULAR = re.compile(r"^(sample|crop|input|text)s\b"), r"\1"
MORE = "pass at least 16 different samples in `calibration` for an error you can rely on"


def measure(check: Check) -> str:
    """What the user's own measure says; '' where there is none."""
    return "" if check.measure is None else str(check.measure)


def quality(check: Check) -> str:
    """What was measured on the inputs that judge; '' where nothing was."""
    found = check.quality
    if found is None:
        worst = check.worst
        return "" if worst is None else f"output error {in_percent(worst.relative_l2)} on {_plain(check.inputs)}"
    text = f"output error {in_percent(found.error)} on {counted(found.samples, found.inputs)}"
    if found.agreement is not None and found.interval is not None:
        low, high = (round(100 * end) for end in found.interval)
        text += f" (same top class for {in_percent(found.agreement)}, 95 % interval {low} to {high} %)"
    if not found.independent:
        text += ", which say little about real ones"
    return text


def peak(before: Size, after: Size) -> tuple[str, str, str]:
    """The peak memory of activations before and after, and the change; a dash for what is not known."""
    old, new = before.peak_memory, after.peak_memory
    was, now = ("-" if one is None else in_bytes(one) for one in (old, new))
    return was, now, "-" if old is None or new is None else change(old, new)


def compared_on(check: Check) -> str:
    """What the table of outputs was measured on: often only some of the inputs that judge."""
    count = next((done.samples for done in check.providers if done.outputs), 0)
    total = 0 if check.quality is None else check.quality.samples
    if not count or check.quality is None:
        return f"measured on {check.inputs}"
    inputs = counted(total, check.quality.inputs)
    return f"measured on {inputs}" if count >= total else f"measured on {count} of the {inputs}"


def advice(check: Check) -> str:
    """What would tell more; '' where what was measured can be trusted."""
    if check.quality is None or check.quality.independent:
        return ""
    return MORE if check.quality.inputs[:1].isdecimal() else ADVICE


def comes_first(check: Check) -> bool:
    """Whether the error is more than what is usual, or than what was asked for: then it is said before anything."""
    return check.quality is not None and bool(check.quality.broken(check.limit))


def counted(samples: int, inputs: str) -> str:
    """How many of which inputs: "64 crops of two photographs", "8 of 64 samples of c.npz"."""
    given = inputs.split()[0] if inputs else ""
    if given.isdecimal():
        return inputs if int(given) == samples else f"{samples} of {inputs}"
    what = _plain(inputs)
    return f"{samples} {_ONE.sub(_SINGULAR, what) if samples == 1 else what}"


def _plain(inputs: str) -> str:
    kinds = {"calibration": "samples of", "deep inversion": "inputs by"}
    what = next((what for kind, what in kinds.items() if inputs.startswith(kind)), "")
    return f"{what} {inputs}" if what else inputs
