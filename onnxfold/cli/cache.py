"""``onnxfold cache show`` and ``onnxfold cache clear``."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from ..errors import RequestError
from ..units import ago, in_bytes, visible
from .arguments import CACHE, add_last
from .parser import Parser
from .streams import printing


def parser() -> Parser:
    """How the command is called."""
    made = Parser("onnxfold cache", "onnxfold cache show|clear", CACHE)
    made.add_argument("action", metavar="show|clear", choices=("show", "clear"), help="what to do with the cache")
    add_last(made, runs=False)
    return made


def run(options: argparse.Namespace) -> int:
    """Do what is asked, and return the exit code."""
    from ..calibration.synthetic.cache_folder import existing, place  # slow to import; --help comes without

    there, folder = place(), existing()
    if options.action == "clear":
        _say(_cleared(folder, there))
    else:
        _say(*_shown(folder, there))
    return 0


def _shown(folder: Path | None, there: Path | None) -> list[str]:
    """Where the cache is, how many entries it has, how many bytes they take, and when they were used."""
    from ..calibration.synthetic.cache_folder import entries

    found = [] if folder is None else entries(folder)
    lines = [
        f"place    {_named(folder, there)}", f"entries  {len(found)}",
        f"bytes    {in_bytes(sum(entry.size for entry in found))} of {_limit()}",
    ]  # fmt: skip
    if found:
        times = [ago(time.time() - entry.used) for entry in (found[0], found[-1])]
        lines.append(f"used     {' to '.join(dict.fromkeys(times))}")
    return lines


def _cleared(folder: Path | None, there: Path | None) -> str:
    """Remove the entries, and say which those were. Raises RequestError where some stay."""
    from ..calibration.synthetic.cache_folder import clear, entries

    before = [] if folder is None else entries(folder)
    left = [] if folder is None else clear(folder)
    if left:
        raise RequestError(f"cannot remove {len(left)} of {len(before)} entries, like {left[0].path}")
    size = in_bytes(sum(entry.size for entry in before))
    count = "1 entry" if len(before) == 1 else f"{len(before)} entries"
    return f"removed {count}, {size}, from {_named(folder, there)}"


def _named(folder: Path | None, there: Path | None) -> str:
    if there is None:
        return "disabled: there is no home folder to keep it in"
    if folder is None and os.path.lexists(there):
        return f"{visible(str(there))} (not owned by this user, so nothing is cached)"
    return visible(str(there)) + ("" if folder is not None else " (does not exist yet)")


def _limit() -> str:
    from ..calibration.synthetic.cache_folder import VARIABLE, limit
    from ..units import read_size

    given = os.environ.get(VARIABLE)
    if given is None:
        how = f"set {VARIABLE} to change it"
    elif read_size(given) is None:
        how = f"{VARIABLE} is not a size like 4G and is ignored"
    else:
        how = f"by {VARIABLE}"
    return f"{in_bytes(limit())} at most ({how})"


def _say(*lines: str) -> None:
    from .output import _Console

    with printing():
        for line in lines:
            _Console().print(line, markup=False, highlight=False, soft_wrap=True)
