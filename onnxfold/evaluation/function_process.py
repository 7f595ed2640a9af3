"""Calls FILE.py:FUNCTION with the path of a model, in a process of its own; writes what came of it as one JSON line.

Run as a script: ``python function_process.py FILE FUNCTION MODEL ANSWER SECONDS``. It imports nothing of onnxfold.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from numbers import Real
from typing import Any

_LONGEST = 200  # characters of what was raised that are kept


class NotMeasuredError(Exception):
    """What the function is or returned, after its name in a sentence: no number, not there."""


def loaded(file: str, function: str) -> Callable[[str], object]:
    """The function of that name in a file, which is imported as ``python FILE`` would find it.

    Raises whatever the file raises, and NotMeasuredError where it has no such function.
    """
    folder, here = (os.path.dirname(os.path.realpath(path)) for path in (file, __file__))
    sys.path[:] = [folder, *(path for path in sys.path if path != here)]
    name = os.path.basename(file).removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickles and data classes look for it there
    spec.loader.exec_module(module)
    found: Callable[[str], object] | None = getattr(module, function, None)
    if not callable(found):
        near = get_close_matches(function, [name for name, one in vars(module).items() if callable(one)], 1)
        meant = f": did you mean '{near[0]}'?" if near else ""
        raise NotMeasuredError(f"cannot be called: the file has no such function{meant}")
    return found


def number(value: Any) -> float:
    """What a function returned, as a finite float; scalars of NumPy and the like count. Raises NotMeasuredError."""
    plain = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
    if isinstance(plain, bool) or not isinstance(plain, Real):
        raise NotMeasuredError(f"returned {_short(repr(value))} (a {type(value).__name__}), not a number")
    if not math.isfinite(plain):
        raise NotMeasuredError(f"returned {float(plain)}, not a finite number")
    return float(plain)


def raised(error: BaseException, file: str = "") -> str:
    """What was raised, in words, with the last line of `file` that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if file and os.path.abspath(frame.filename) == os.path.abspath(file)]
    said = _short(str(error))
    return f"raised {type(error).__name__}{f': {said}' if said else ''}{f' (line {lines[-1]})' if lines else ''}"


def called(file: str, function: str, model: str) -> dict[str, object]:
    """{"value": a number}, or {"error": what went wrong, after the name of the function in a sentence}."""
    before = "cannot be imported: the file "
    try:
        measure = loaded(file, function)
        before = ""
        return {"value": number(measure(model))}
    except NotMeasuredError as error:
        return {"error": str(error)}
    except BaseException as error:  # SystemExit, too
        return {"error": before + raised(error, file)}


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def main(file: str, function: str, model: str, answer: str, seconds: str) -> None:
    """Call it. Where the process that waits for this one is gone, the system ends it after so many seconds."""
    if hasattr(signal, "alarm"):
        signal.alarm(min(math.ceil(float(seconds)), 2**31 - 1))
    found = json.dumps(called(file, function, model))
    with open(f"{answer}.part", "w", encoding="utf-8") as written:
        written.write(f"{found}\n")
    os.replace(f"{answer}.part", answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
