"""The user's own measure: what it may return, and what becomes of one that fails, in this process or its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxfold.errors import RequestError
from onnxfold.evaluation import function_process
from onnxfold.evaluation.own_measure import Measured, own_measure
from onnxfold.evaluation.own_process import ended, waited
from onnxfold.model.leftovers import OURS

PYTHON_MODEL = Path("m.onnx")  # no measure here opens it
QUICK = 30.0


def measured(code: str, folder: Path, timeout: float = QUICK, function: str = "f") -> float:
    """What FILE.py:f says, if it is written like this."""
    (folder / "own.py").write_text(code, encoding="utf-8")
    return own_measure(f"{folder / 'own.py'}:{function}", PYTHON_MODEL, None, timeout).before


def refused(code: str, folder: Path, says: str, timeout: float = QUICK, function: str = "f") -> str:
    before = ours()
    with pytest.raises(RequestError, match=says) as caught:
        measured(code, folder, timeout, function)
    line = str(caught.value)
    assert "\n" not in line and "`metric`" in line and "own.py" in line
    assert sorted(p.name for p in folder.iterdir()) == ["own.py"] and ours() == before, "something is left behind"
    return line


def ours() -> set[str]:
    """What runs of this process have in the temporary folder."""
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith(OURS) and f"-{os.getpid()}-" in name}


# what counts as a number ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "found"),
    [(0.5, 0.5), (3, 3.0), (np.float32(0.25), 0.25), (np.int64(7), 7.0), (np.array(0.5), 0.5), (Fraction(1, 4), 0.25)],
)
def test_numbers(value: Any, found: float) -> None:
    got = own_measure(lambda _: value, PYTHON_MODEL, None, QUICK).before
    assert got == found and type(got) is float


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("0.5", "a str"), (None, "a NoneType"), (True, "a bool"), (np.bool_(True), "not a number"), (1j, "a complex"),
        (float("nan"), "nan, not a finite"), (np.float32("inf"), "inf, not a finite"), ([0.5], "a list"),
        (np.array([0.5, 0.6]), "a ndarray"), ("x" * 9999, "not a number"),
    ],
)  # fmt: skip
def test_what_is_no_number(value: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        own_measure(lambda _: value, PYTHON_MODEL, None, QUICK)
    line = str(caught.value)
    assert "`metric`" in line and "lambda" in line and "\n" not in line and len(line) < 400


@pytest.mark.parametrize("error", [ValueError("bad\nthing"), SystemExit(3), KeyError("x"), MemoryError()])
def test_a_function_given_in_python_raises(error: BaseException) -> None:
    def own(_: str) -> float:
        raise error

    with pytest.raises(RequestError, match=f"own' raised {type(error).__name__}") as caught:
        own_measure(own, PYTHON_MODEL, None, QUICK)
    assert "\n" not in str(caught.value) and caught.value.__cause__ is error


def test_ctrl_c_is_no_failure_of_the_function() -> None:
    def own(_: str) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own_measure(own, PYTHON_MODEL, None, QUICK)


# in a process of its own ----------------------------------------------------------------------------------------------


def test_the_path_is_given_and_the_number_comes_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = "def f(path):\n    print(path, 'garbage', flush=True)\n    return len(path) / 3"
    assert measured(code, tmp_path) == len("m.onnx") / 3
    code = (
        "import os, sys\ndef f(path):\n    os.write(1, b'{}'); sys.stderr.write('no'); return isinstance(path, str) + 0"
    )
    assert measured(code, tmp_path) == 1
    assert capfd.readouterr() == ("", ""), "what it prints is not shown among ours"
    assert [p.name for p in tmp_path.iterdir()] == ["own.py"], "no bytecode beside it"


def test_numpy_scalars_come_back(tmp_path: Path) -> None:
    assert measured("import numpy as np\ndef f(path):\n    return np.float32(0.5)", tmp_path) == 0.5


def test_it_imports_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "metrics.py").write_text("VALUE = 2.5")  # there is one beside our own script, too
    code = "from dataclasses import dataclass\nimport metrics, pickle\n@dataclass\nclass A:\n    x: 'float'\n"
    code += "def f(path):\n    return pickle.loads(pickle.dumps(A(metrics.VALUE))).x"
    assert measured(code, tmp_path) == 2.5
    assert measured("def f(path):\n    return __name__ == 'own' and 1.5", tmp_path) == 1.5


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def f(path):\n    x = 1\n    raise ValueError('no\\nsuch')", r"raised ValueError: no such \(line 3"),
        ("import sys\ndef f(path):\n    sys.exit(4)", "raised SystemExit: 4"),
        ("import os\ndef f(path):\n    os._exit(4)", r"exited \(exit code 4\)"),
        ("import os\ndef f(path):\n    os.abort()", r"exited \(SIGABRT\)"),
        ("def f(path):\n    raise KeyboardInterrupt", "raised KeyboardInterrupt"),
        ("def f(path):\n    return 'much'", "returned 'much' .a str., not a number"),
        ("def f(path):\n    pass", "returned None"),
        ("def f(path):\n    return float('nan')", "returned nan, not a finite number"),
        ("def f():\n    return 1", "raised TypeError"),
        ("def g(path):\n    return 1", "the file has no such function"),
        ("def ff(path):\n    return 1", "the file has no such function: did you mean 'ff'?"),
        ("f = 3", "the file has no such function"),
        ("def f(path)\n    return 1", "cannot be imported: the file raised SyntaxError"),
        ("import no_such_module_at_all", "cannot be imported: the file raised ModuleNotFoundError: No module named"),
        ("x = {}['k']\ndef f(path):\n    return 1", r"cannot be imported: the file raised KeyError: 'k' \(line 1"),
    ],
)  # fmt: skip
def test_what_fails_ends_in_one_line(tmp_path: Path, code: str, says: str) -> None:
    line = refused(code, tmp_path, says)
    assert "own.py:f'" in line and len(line) < 400


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("no.py", "."):
        with pytest.raises(RequestError, match="`metric`: there is no file"):
            own_measure(f"{tmp_path / name}:f", PYTHON_MODEL, None, QUICK)


def test_one_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    beat = tmp_path.parent / f"{tmp_path.name}-beat"
    loop = f"import time\nwhile True:\n    open({str(beat)!r}, 'a').write('x')\n    time.sleep(0.05)"
    code = f"import subprocess, sys, time\ndef f(path):\n    subprocess.Popen([sys.executable, '-c', {loop!r}])\n"
    refused(code + "    time.sleep(600)", tmp_path, "took more than 1.5 seconds .*`metric_timeout`", timeout=1.5)
    seen = beat.stat().st_size
    time.sleep(0.3)
    assert seen > 0 and beat.stat().st_size == seen


def test_what_goes_on_after_the_answer_is_ended(tmp_path: Path) -> None:
    code = "import threading, time\ndef f(path):\n    threading.Thread(target=time.sleep, args=(600,)).start()\n"
    code += "    return 1.5"
    assert measured(code, tmp_path, timeout=2) == 1.5


def test_one_that_does_not_listen_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxfold.evaluation.own_process._GRACE", 0.2)
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef f(path):\n    time.sleep(600)"
    begin = time.monotonic()
    refused(code, tmp_path, "took more than 1 seconds", timeout=1)
    assert time.monotonic() - begin < 30


def test_an_interrupted_wait_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children = list[subprocess.Popen[bytes]]()

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def wait(self, timeout: float | None = None) -> int:
            if not children:
                children.append(self)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        waited([sys.executable, "-c", "import time; time.sleep(600)"], 600)
    assert children[0].returncode is not None and children[0].returncode != 0


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="no alarms here")
def test_a_process_that_nobody_waits_for_ends_by_itself(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import time\ndef f(path):\n    time.sleep(600)")
    given = [tmp_path / "own.py", "f", "m.onnx", tmp_path / "answer.json", 0.5]
    done = subprocess.run([sys.executable, "-B", function_process.__file__, *map(str, given)], check=False, timeout=60)
    assert done.returncode == -signal.SIGALRM and not (tmp_path / "answer.json").exists()


def test_how_a_process_ended() -> None:
    assert (ended(3), ended(-11), ended(-99)) == ("exit code 3", "SIGSEGV", "signal 99")


# what is made of it ---------------------------------------------------------------------------------------------------


def test_the_drop_is_against_the_original() -> None:
    values = iter([0.9, 0.8, 0.95])
    own = own_measure(lambda _: next(values), PYTHON_MODEL, 0.05, QUICK)
    worse, better = own.of(PYTHON_MODEL), own.of(PYTHON_MODEL)
    assert (own.before, worse.after, worse.drop) == (0.9, 0.8, pytest.approx(0.1)) and not worse.kept
    assert better.drop < 0 and better.kept and not better.broken
    assert worse.broken == "metric 0.8 (was 0.9), which breaks `max_drop=0.05`"


@pytest.mark.parametrize(("before", "after", "most", "kept"), [(98.4, 97.4, 1.0, True), (98.4, 97.3, 1.0, False)])
def test_rounding_breaks_nothing(before: float, after: float, most: float, kept: bool) -> None:
    assert Measured("f", before, after, before - after, most).kept is kept
    told = Measured("f", before, after, before - after)
    assert not told.kept and not told.broken, "nothing was asked for"
