"""The command line: a thin layer over `onnxfold.fold`, `inspect`, `sweep` and `compare`."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence

from ..errors import OnnxFoldError
from ..runtime import session
from .arguments import names_of, one_line
from .compare import _compare
from .fold import _fold
from .fuse import _WHOLE_LAYERS, _fuse
from .layers import _layers
from .parsing import dashes
from .sweep import _sweep

BUG = "Please report it with the output of the same command after 'export ONNXFOLD_TRACEBACK=1'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (see `CODES`)."""
    given = dashes(sys.argv[1:] if arguments is None else arguments)
    command = COMMANDS.get(given[0]) if given else None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal cannot show must not end the run
            stream.reconfigure(errors="backslashreplace")
    if arguments is None and not sys.warnoptions:
        warnings.simplefilter("ignore")
    session.silence()
    try:
        if command is None:
            command, given = (_fuse if _WHOLE_LAYERS.intersection(names_of(given)) else _fold), ["", *given]
        return command(given[1:])
    except SystemExit as stop:  # --help, --version and usage errors
        return stop.code if isinstance(stop.code, int) else 2
    except OnnxFoldError as error:
        return _complain(str(error), error.exit_code)
    except MemoryError:
        return _complain("out of memory: use a machine with more, or give smaller --input-shape", 2)
    except OSError as error:  # a full temporary folder, say
        return _complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 2)
    except KeyboardInterrupt:
        return _complain("interrupted, nothing was written", 130)
    except Exception as error:  # a bug of ours; the model is not to blame, and nothing was written
        if "ONNXFOLD_TRACEBACK" in os.environ:
            raise
        what = f"{type(error).__name__}: {error}"
        return _complain(f"internal error, nothing was written ({what}). {BUG}", 70)


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {"compare": _compare, "layers": _layers, "sweep": _sweep}


def _complain(message: str, code: int) -> int:
    """One line on standard error."""
    print(f"onnxfold: {one_line(message)}", file=sys.stderr)
    return code
