"""The command line as a stranger meets it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from tiny import FAST, MODELS, ROOT, SHARED, TEXT, main, net, snapshot, write

from onnxfold import __core__, __version__
from onnxfold.cli import main as cli
from onnxfold.errors import RuleError
from onnxfold.options.budget import DEFAULT_MAX_ERROR
from onnxfold.report import saved as report
from onnxfold.report.fold_report import FoldReport

Capture = pytest.CaptureFixture[str]


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def process(*arguments: object, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A run in a process of its own; without the lines that a busy machine gives time for."""
    how = () if "compare" in arguments else FAST
    done = subprocess.run(
        [sys.executable, "-m", "onnxfold", *map(str, arguments), *how], cwd=folder, capture_output=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), **more}, check=False, encoding="utf-8",
    )  # fmt: skip
    done.stderr = re.sub(r"onnxfold: .* % done.*\n", "", done.stderr)
    return done


# help ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["compare"], ["sweep"], ["layers"], ["--fuse", "mean"]])
def test_help(capsys: Capture, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert run(*command, "--help") == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert shown.err == "" and len(lines) <= 96 and max(map(len, lines)) <= 100
    for word in ("--report", "--providers", "exit codes", "--input-shape"):
        assert word in shown.out


def test_help_tells_the_main_job_first(capsys: Capture) -> None:
    run("-h")
    text = capsys.readouterr().out
    order = ["onnxfold IN OUT", "inspect IN", "sweep IN", "compare A B", "out.onnx --ratio 0.3", "the file to write"]
    order.append("--ratio R")
    assert [text.index(word) for word in order] == sorted(text.index(word) for word in order)
    assert "at most 10 %" in text


@pytest.mark.parametrize("given", [["--help"], ["--fuse", "mean", "--help"], ["layers", "-h"], ["sweep", "-h"]])
def test_help_holds_no_template(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) == 0
    shown = capsys.readouterr().out
    assert "{" not in shown and "exit codes" in shown


def test_commands_in_the_help_work(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("--help")
    lines = capsys.readouterr().out.splitlines()
    commands = [line.split("  ") for line in lines if line.startswith("  onnxfold in.onnx")]
    assert len(commands) >= 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.onnx").write_bytes((MODELS / "digits_vgg.onnx").read_bytes())
    for words in commands:
        assert run(*words[1].split()[1:], "-q") == 0
        (tmp_path / "out.onnx").unlink()


def test_version(capsys: Capture) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"onnxfold {__version__} (core: {__core__})\n"


# folding ------------------------------------------------------------------------------------------------------------


def test_fold(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "in.onnx")
    assert run(path, tmp_path / "out.onnx", "--ratio", "0.5") == 0
    shown = capsys.readouterr()
    assert shown.err == "" and "! output error" in shown.out and "file -6" in shown.out and "16 → 8" in shown.out
    assert onnx.load(tmp_path / "out.onnx").graph.initializer[0].dims[0] == 8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "out.onnx"]


def test_default_budget(tmp_path: Path, capsys: Capture) -> None:
    assert run(MODELS / "digits_vgg.onnx", tmp_path / "out.onnx", "--report", tmp_path / "r.json") == 0
    data = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert data["settings"]["budget"] == {"max-error": DEFAULT_MAX_ERROR}
    assert data["after"]["parameters"] < data["before"]["parameters"]
    assert capsys.readouterr().err == ""


def test_quiet(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "in.onnx")
    assert run(path, tmp_path / "out.onnx", "--ratio", "0.5", "-q") == 0
    assert run(path, "--inspect", "-q") == 0
    assert run("compare", path, path, "--quiet") == 0
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""


def test_shares_and_percentages_are_the_same(tmp_path: Path) -> None:
    path, made = write(tmp_path / "in.onnx"), []
    for at, value in enumerate(("0.5", "50%")):
        assert run(path, tmp_path / f"{at}.onnx", "--ratio", value, "-q") == 0
        made.append((tmp_path / f"{at}.onnx").read_bytes())
    assert made[0] == made[1]
    grouped = [("--ratio", "0", "--group-ratio", f".*={value}") for value in ("0.5", "50%")]
    made = [(run(path, tmp_path / "o.onnx", *g, "-q"), (tmp_path / "o.onnx").read_bytes()) for g in grouped]
    assert made[0] == made[1] and made[0][0] == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["in.onnx", "o.onnx", "--targt-macs", "0.7"], "did you mean --target-macs?"),
        (["in.onnx", "o.onnx", "--ratio", "0,3"], "give a number like 0.3 or a percentage like 30%, not '0,3'"),
        (["sweep", "in.onnx", "--at", "a"], "wants shares like .9,.7,.5 or 90%,70%,50%, not 'a'"),
        (["swep", "in.onnx"], "neither a command nor a file: did you mean onnxfold sweep?"),
        (["inspet", "in.onnx"], "did you mean onnxfold inspect?"),
    ],
)
def test_what_was_meant(
    given: list[str], says: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.onnx")
    assert run(*given) == 2
    shown = capsys.readouterr().err
    assert says in shown and shown.count("\n") == 1


def test_options_may_stand_between_files(tmp_path: Path) -> None:
    path = write(tmp_path / "in.onnx")
    assert run(path, "--ratio", 0.5, tmp_path / "out.onnx", "-q") == 0 and (tmp_path / "out.onnx").exists()


def test_commands_that_need_no_name(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fold` and `inspect`, whatever else is there."""
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "in.onnx")
    assert run("inspect", path) == 0 and "2 groups with 32 channels" in capsys.readouterr().out
    assert run("fold", path, "out.onnx", "--ratio", 0.5, "-q") == 0 and (tmp_path / "out.onnx").exists()
    (tmp_path / "inspect").write_bytes(path.read_bytes())
    before = snapshot(tmp_path)
    assert run("inspect", "--", path) == run("inspect", path) == run("./inspect", "--inspect") == 0
    assert snapshot(tmp_path) == before


def test_underscores(tmp_path: Path) -> None:
    path = write(tmp_path / "in.onnx")
    options = ["--target_macs=0.6", "--round_to", "4", "--input_shape", "x:1,3,8,8", "--save_as_external_data", "-q"]
    assert run(path, tmp_path / "out.onnx", *options) == 0


def test_underscores_in_names_stay(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "in.onnx", net(TEXT.replace("(x, w1", "(my_x, w1").replace("8] x)", "8] my_x)")))
    assert run(path, tmp_path / "out_1.onnx", "--ratio", 0.5, "--input-shape=my_x:1,3,8,8", "-q") == 0
    assert (tmp_path / "out_1.onnx").exists()
    assert run("--", "--no_such_file", tmp_path / "out.onnx") == 3
    assert "--no_such_file" in capsys.readouterr().err


def test_include_and_exclude(tmp_path: Path, capsys: Capture) -> None:
    path = write(tmp_path / "in.onnx")
    assert run(path, tmp_path / "out.onnx", "--ratio", 0.5, "--include", "Conv", "--exclude", "#2") == 0
    shown = capsys.readouterr().out
    assert "excluded" in shown and "16 → 8" in shown
    dims = [list(t.dims) for t in onnx.load(tmp_path / "out.onnx").graph.initializer]
    assert dims[0] == [8, 3, 3, 3] and dims[2] == [16, 8, 3, 3]


def test_failed_verdict(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables and one line that says why; the report is written, the model is not."""
    path = write(tmp_path / "in.onnx")
    monkeypatch.setattr("onnxfold.evaluation.verdict._interface", lambda *_: ["the model's inputs changed ('x')"])
    assert run(path, tmp_path / "out.onnx", "--ratio", 0.5, "--report", tmp_path / "r.json") == 1
    shown = capsys.readouterr()
    assert "✘ failed" in shown.out and "latency" in shown.out
    assert shown.err.count("\n") == 1 and "was not written: failed: the model's inputs changed" in shown.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "r.json"]
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["passed"] is False


# inspect, compare, report -------------------------------------------------------------------------------------------


def test_inspect_writes_nothing(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "in.onnx")
    before = snapshot(tmp_path)
    assert run(path, "--inspect") == run(path, "out.onnx", "--inspect", "-v") == 0
    assert snapshot(tmp_path) == before
    assert "2 groups with 32 channels" in capsys.readouterr().out


def test_compare(tmp_path: Path, capsys: Capture) -> None:
    one, other = write(tmp_path / "a.onnx"), write(tmp_path / "b.onnx", net(seed=1))
    assert run("compare", one, one) == 0
    assert "exact" in capsys.readouterr().out
    assert run("compare", one, other, "--report", tmp_path / "r.json") == 0
    shown = capsys.readouterr()
    assert shown.err == "" and "SQNR" in shown.out and "latency CPU" in shown.out
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["check"]["providers"][0]["status"] == "ok"


def test_compare_models_that_do_not_belong_together(tmp_path: Path, capsys: Capture) -> None:
    other = net(TEXT.replace("(x, w1", "(z, w1").replace("8] x)", "8] z)"))
    assert run("compare", write(tmp_path / "a.onnx"), write(tmp_path / "b.onnx", other)) == 1
    assert "inputs changed" in capsys.readouterr().out


def test_report_is_the_reports_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[FoldReport] = []

    def keep(given: FoldReport, path: Path, _: object) -> None:
        seen.append(given)
        report.save(given, path)

    monkeypatch.setattr("onnxfold.cli.output.save", keep)
    path = write(tmp_path / "in.onnx")
    assert run(path, tmp_path / "out.onnx", "--ratio", 0.5, "-q", "--report", tmp_path / "r.json") == 0
    text = (tmp_path / "r.json").read_text(encoding="utf-8")
    assert text == seen[0].to_json() + "\n"

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    assert json.loads(text, parse_constant=refuse)["output"] == str(tmp_path / "out.onnx")


def test_report_of_inspect(tmp_path: Path) -> None:
    assert run(write(tmp_path / "in.onnx"), "--inspect", "-q", "--report", tmp_path / "r.json") == 0
    data = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert data["after"] is None and data["passed"] is None and len(data["groups"]) == 2


# terminals ----------------------------------------------------------------------------------------------------------


def test_no_noise_in_a_process(tmp_path: Path) -> None:
    """Nothing but the tables: no progress, no log of onnxruntime, no warnings."""
    write(tmp_path / "in.onnx")
    done = process("in.onnx", "out.onnx", "--ratio", 0.5, "--providers", "cpu", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("in.onnx → out.onnx\n") and "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    done = process("in.onnx", "out.onnx", "--ratio", 0.5, "-q", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_terminal_without_unicode(tmp_path: Path) -> None:
    write(tmp_path / "in.onnx")
    done = process("in.onnx", "out.onnx", "--ratio", 0.5, folder=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stderr == "" and "16 -> 8" in done.stdout and done.stdout.isascii()


@pytest.mark.skipif(sys.platform == "win32", reason="file names are text there")
def test_file_name_that_is_no_text(tmp_path: Path) -> None:
    write(tmp_path / "in.onnx")
    name = os.fsdecode(b"\xff.onnx")
    (tmp_path / "in.onnx").rename(tmp_path / name)
    done = process(name, "out.onnx", "--ratio", 0.5, "--report", "r.json", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert process(name + "x", "out.onnx", folder=tmp_path).returncode == 3


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_consumer_that_stops_early(tmp_path: Path) -> None:
    write(tmp_path / "in.onnx")
    command = f"{sys.executable} -m onnxfold in.onnx out.onnx --ratio 0.5 --effort fast | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == "0\n" and done.stderr == ""
    assert (tmp_path / "out.onnx").exists()


def test_threads_and_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "in.onnx")
    made = []
    for threads in (1, 2, 0):
        assert run(path, tmp_path / "out.onnx", "--ratio", 0.5, "--threads", threads, "--seed", 3, "-q") == 0
        made.append((tmp_path / "out.onnx").read_bytes())
    assert made[0] == made[1] == made[2]


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
@pytest.mark.parametrize("name", ["simple_cnn", "kws_dscnn_mlperftiny", "cifar10_resnet20_bn_fp16"])
def test_real_models(name: str, tmp_path: Path, capsys: Capture) -> None:
    source = SHARED / f"{name}.onnx"
    assert run(source, tmp_path / "out.onnx", "--ratio", 0.2) == 0
    assert capsys.readouterr().err == ""
    onnx.checker.check_model(str(tmp_path / "out.onnx"))


def test_a_bug_of_ours_is_one_line_with_its_own_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuleError("a rule\nbroke its contract")

    monkeypatch.delenv("ONNXFOLD_TRACEBACK", raising=False)
    monkeypatch.setattr("onnxfold.api.fold", broken)
    out = tmp_path / "out.onnx"
    assert cli.main([str(MODELS / "digits_mlp.onnx"), str(out)]) == 70
    error = capsys.readouterr().err
    assert "RuleError: a rule broke its contract" in error and error.count("\n") == 1 and not out.exists()
    monkeypatch.setenv("ONNXFOLD_TRACEBACK", "1")
    with pytest.raises(RuleError):
        cli.main([str(MODELS / "digits_mlp.onnx"), str(out)])


@pytest.mark.parametrize("given", [None, "20"])
def test_idle_threads_of_numpy_sleep(given: str | None, tmp_path: Path) -> None:
    """Unless the user wants something else; numpy reads it when it is imported, which comes later."""
    code = """import os, sys
from onnxfold.cli.main import main
assert "numpy" not in sys.modules
main(["--version"])
print(os.environ["OPENBLAS_THREAD_TIMEOUT"])"""
    known = {key: value for key, value in os.environ.items() if key != "OPENBLAS_THREAD_TIMEOUT"}
    known |= {"PYTHONPATH": str(ROOT)} | ({"OPENBLAS_THREAD_TIMEOUT": given} if given else {})
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=known, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == (given or "4")
