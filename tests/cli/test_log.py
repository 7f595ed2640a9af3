"""--log-level: what the library's loggers say, on standard error and nowhere else."""

from __future__ import annotations

import argparse
import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from samples import save_image
from tiny import FAST, write

import onnxfold
from onnxfold.cli.log import logged
from onnxfold.cli.main import main
from onnxfold.progress import display

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.onnx")


FOLD = ["in.onnx", "out.onnx", "--ratio", "0.5", "-q"]


def test_nothing_is_shown_unless_asked_for(capsys: Capture) -> None:
    assert main([*FOLD, *FAST]) == 0 and capsys.readouterr().err == ""


def test_info_tells_the_stages(capsys: Capture) -> None:
    assert main([*FOLD, *FAST, "--log-level", "info"]) == 0
    shown = capsys.readouterr()
    lines = [line.split(maxsplit=2) for line in shown.err.splitlines()]
    assert shown.out == "" and {level for _, level, _ in lines} == {"INFO"}
    said = [words for _, _, words in lines]
    stages = [
        "runs on CPU", "read in.onnx: 7 nodes", "2 channel groups, of which 2 may shrink",
        "no samples: weights alone decide", "--ratio 0.5: 2 of 2 groups shrink", "fold took ",
        "written under a temporary name", "verify took ", "out.onnx is in place",
    ]  # fmt: skip
    found = [next(i for i, words in enumerate(said) if words.startswith(stage)) for stage in stages]
    assert found == sorted(found)
    assert not [words for words in said if re.search(r"[a-z][A-Z]|\b0\.00 s", words)], "classes are for developers"


def test_debug_tells_groups_and_sessions(capsys: Capture) -> None:
    assert main([*FOLD, *FAST, "--log-level", "debug", "--exclude", "#2"]) == 0
    shown = capsys.readouterr().err
    assert (
        "DEBUG   Analyze starts (pass 1 of " in shown
        and "CollectSamples is done after 0." in shown
        and "8 of 16 channels stay" in shown
    )
    assert "session of in.onnx on CPU" in shown and "stays: excluded" in shown


def test_synthetic_inputs_are_told_from_kept_ones(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for says in ("synthetic inputs: made anew", "synthetic inputs: kept from another run"):
        assert main([*FOLD, "--log-level", "info"]) == 0
        assert says in capsys.readouterr().err


def test_json_stays_alone(capsys: Capture) -> None:
    assert main(["inspect", "in.onnx", "--json", "-q", "--log-level", "debug"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["groups"] and "Inspect is done" in shown.err


def test_the_logger_is_as_it_was_afterwards() -> None:
    logger = logging.getLogger("onnxfold")
    before = (logger.level, list(logger.handlers))
    assert main([*FOLD, *FAST, "--log-level", "debug", "--include", "zebra"]) == 4
    assert (logger.level, list(logger.handlers)) == before
    assert [type(handler) for handler in before[1]] == [logging.NullHandler]


def test_the_library_only_logs(caplog: pytest.LogCaptureFixture, capsys: Capture) -> None:
    with caplog.at_level(logging.INFO, logger="onnxfold"):
        onnxfold.inspect("in.onnx")
    assert capsys.readouterr() == ("", "")
    assert {record.name for record in caplog.records} == {"onnxfold.passes.base"}


def test_no_such_level(capsys: Capture) -> None:
    assert main([*FOLD, "--log-level", "inof"]) == 2 and "did you mean info?" in capsys.readouterr().err


def test_patterns_that_do_nothing_are_told(capsys: Capture) -> None:
    given = ["inspect", "in.onnx", "--include", "Conv", "--include", "Covn#0", "--exclude", "zebra"]
    assert main(given) == 0
    assert [line.removeprefix("onnxfold: warning: ") for line in capsys.readouterr().err.splitlines()] == [
        "no group matches the pattern 'Covn#0' in --include: did you mean 'Conv#0'?",
        "no group matches the pattern 'zebra' in --exclude",
    ]
    assert main([*given, "-q"]) == 0 and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "--preprocess is not used: it is for images in --calibration, and none is given"),
        (["--calibration", "c.npz"], "--preprocess is not used: the calibration data is numbers, not pixels"),
        (["--calibration", "pixels.npz"], ""),
        (["--calibration", "images"], ""),
    ],
)
def test_preprocessing_that_does_nothing_is_told(given: list[str], said: str, capsys: Capture) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    np.savez("c.npz", x=pixels.transpose(0, 3, 1, 2).astype(np.float32) / 128 - 1)
    np.savez("pixels.npz", x=pixels)
    save_image(Path("images", "a.png"), pixels[0])
    assert main(["compare", "in.onnx", "in.onnx", "--preprocess", "0-1", *given]) == 0
    assert capsys.readouterr().err.removeprefix("onnxfold: warning: ").rstrip() == said


def test_options_of_samples_where_there_are_none_are_told(capsys: Capture) -> None:
    assert main(["inspect", "in.onnx", "--preprocess", "imagenet", "--calibration", "c.npz"]) == 0
    said = [line.removeprefix("onnxfold: warning: ") for line in capsys.readouterr().err.splitlines()]
    assert said == [f"{name} is not used: inspect runs nothing" for name in ("--calibration", "--preprocess")]
    main(["layers", "in.onnx", "--preprocess", "raw", "--distance", "cosine"])
    assert "--preprocess is not used: --distance cosine looks at weights alone" in capsys.readouterr().err


def test_on_a_terminal_records_stand_above_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """On its console, whose live drawing would be torn by another one."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with logged(argparse.Namespace(log_level="info")):
        handler = logging.getLogger("onnxfold").handlers[-1]
        shown = list[object]()
        monkeypatch.setattr(type(handler), "emit", lambda self, _: shown.append(self.console))
        logging.getLogger("onnxfold.passes").info("before")
        with display.opened() as open_one:
            logging.getLogger("onnxfold.passes").info("meanwhile")
            assert open_one.console is not None and shown[1] is open_one.console
    assert len(shown) == 2 and shown[0] is not shown[1]
