"""--config and --print-config: the same options from a file."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml
from refusals import REQUEST, Refused, refusing
from tiny import FAST, write

from onnxfold.cli import cache, compare, fold, fuse, layers, sweep
from onnxfold.cli.config import Config, config_of
from onnxfold.cli.main import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.onnx")


@pytest.fixture
def refused(tmp_path: Path, capsys: Capture) -> Refused:
    return refusing(tmp_path, capsys)


def kept(text: str, name: str = "fold.yaml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


# from the file ------------------------------------------------------------------------------------------------------


def test_a_file_gives_the_bytes_that_options_give() -> None:
    given = ["--ratio", "0.5", "--exclude", "#2", *FAST, "-q"]
    assert main(["in.onnx", "plain.onnx", *given]) == 0
    kept("in: in.onnx\nout: kept.onnx\nratio: 50%\nexclude: ['#2']\neffort: fast\nquiet: true\n")
    assert main(["--config", "fold.yaml"]) == 0
    assert Path("kept.onnx").read_bytes() == Path("plain.onnx").read_bytes()


def test_files_of_the_command_line_come_before_those_of_the_file() -> None:
    kept("out: kept.onnx\nratio: 0.5\neffort: fast\nquiet: true\n")
    assert main(["in.onnx", "--config", "fold.yaml"]) == 0 and Path("kept.onnx").exists()
    assert main(["--config=fold.yaml", "in.onnx", "other.onnx"]) == 0 and Path("other.onnx").exists()


def test_inspect_takes_the_file_of_a_fold(capsys: Capture) -> None:
    """What asks for a result, and the file for it, mean nothing there; on the command line they would be refused."""
    kept("in: in.onnx\nout: kept.onnx\nratio: 0.5\neffort: fast\nexclude: ['#2']\n")
    assert main(["inspect", "--config", "fold.yaml"]) == 0 and not Path("kept.onnx").exists()
    assert "excluded" in capsys.readouterr().out


def words(text: str, given: list[str]) -> list[str]:
    config, rest = config_of([*given, "--config", kept(text)])
    assert isinstance(config, Config)
    return config.words(fold.parser(), rest)


@pytest.mark.parametrize(
    ("text", "given", "found"),
    [
        ("seed: 3", ["--seed", "4"], {"seed": 4}),
        ("include: [a, b]", ["--include", "c"], {"include": ["c"]}),
        ("include: a", [], {"include": ["a"]}),
        ("include: [a, b]", [], {"include": ["a", "b"]}),
        ("group-ratio: {a.*: 0.5, b: 30%}", [], {"group_ratio": ["a.*=0.5", "b=30%"]}),
        ("input_shape: {x: [1, 3, 8, 8]}", [], {"input_shape": ["x:1,3,8,8"]}),
        ("providers: [cpu, cuda]", [], {"providers": "cpu,cuda"}),
        ("quantize: true", [], {"quantize": "int8"}),
        ("quantize: fp16", [], {"quantize": "fp16"}),
        ("quantize: false\nrefine: false\nratio: null", [], {"quantize": None, "refine": False, "ratio": None}),
        ("round-to: auto", [], {"round_to": "auto"}),
        ("max-error: 1.0e-2", [], {"max_error": 0.01}),
        ("", [], {"seed": 0}),
        ("in: '-odd.onnx'\nout: b", [], {"input": Path("-odd.onnx"), "output": Path("b")}),
    ],
)
def test_what_a_file_says(text: str, given: list[str], found: dict[str, object]) -> None:
    options = vars(fold.parser().without_files().parsed(words(text, given)))
    assert {name: options[name] for name in found} == found


def test_json(tmp_path: Path) -> None:
    kept(json.dumps({"in": "in.onnx", "inspect": True, "quiet": True}), "o.json")
    assert main(["--config", "o.json"]) == 0


def test_a_file_may_choose_what_layers_share(capsys: Capture) -> None:
    kept("fuse: mean\ndrop-blocks: 1\n")
    assert main(["in.onnx", "o.onnx", "--config", "fold.yaml", "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["drop-blocks"] == "1"


def test_reports_say_what_was_run_without_the_file() -> None:
    kept("in: in.onnx\ninspect: true\nquiet: true\nreport: r.json\n")
    assert main(["--config", "fold.yaml"]) == 0
    command = json.loads(Path("r.json").read_text(encoding="utf-8"))["provenance"]["command"]
    assert shlex.split(command) == ["onnxfold", "--inspect", "--quiet", "--report=r.json", "in.onnx"]


WRONG: dict[str, tuple[str, str]] = {
    "unknown": ("ratoi: 0.3", "fold.yaml: 'ratoi' is no option of onnxfold: did you mean 'ratio'?"),
    "dashes": ("--ratio: 0.3", "did you mean 'ratio'?"),
    "of another command": ("at: 0.5", "fold.yaml: 'at' is no option of onnxfold"),
    "no share": ("ratio: much", "fold.yaml: 'ratio': give a number like 0.3 or a percentage like 30%, not 'much'"),
    "no choice": ("effort: balnced", "fold.yaml: 'effort': invalid choice: 'balnced'"),
    "a choice nearly": ("effort: balnced", "did you mean balanced?"),
    "refused later": ("ratio: 1.5", "must be a number of at least 0 and below 1, not 1.5 ('ratio' in fold.yaml)"),
    "two budgets": ("ratio: 0.5\ntarget-macs: 0.5", "not several ('ratio' and 'target-macs' in fold.yaml)"),
    "no switch": ("refine: 3", "fold.yaml: 'refine' is a switch: write true or false, not 3"),
    "a switch": ("ratio: true", "fold.yaml: 'ratio' must be one value, not True"),
    "several": ("seed: [1, 2]", "fold.yaml: 'seed' must be one value, not [1, 2]"),
    "a date": ("synthetic: 2024-01-01", "'synthetic' must be one value"),
    "twice": ("ratio: 0.5\nratio: 0.3", "fold.yaml cannot be read ('ratio' is there twice)"),
    "no YAML": ("a: [1", "fold.yaml cannot be read (line 1: expected ',' or ']'"),
    "a list": ("- ratio", "fold.yaml must hold options by name, one a line, like 'ratio: 0.3'"),
    "a number for a key": ("3: 4", "must hold options by name"),
    "itself": ("config: other.yaml", "'config' is no option"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_files(refused: Refused, what: str) -> None:
    text, says = WRONG[what]
    refused(REQUEST, "in.onnx", "out.onnx", "--config", kept(text), says=says)


def test_files_that_are_none(refused: Refused) -> None:
    refused(REQUEST, "in.onnx", "--config", "none.yaml", says="cannot read the options in none.yaml: No such file")
    refused(REQUEST, "in.onnx", "--config", "in.onnx", says="ends in .yaml, .yml, .json, not in in.onnx")
    refused(REQUEST, "in.onnx", "--config", says="--config wants a file, like fold.yaml")
    refused(REQUEST, "in.onnx", "--config", kept("{", "o.json"), says="o.json cannot be read (Expecting property name")
    refused(REQUEST, "--config", kept("seed: 1"), "--config", "fold.yaml", says="give one --config, not 2")
    refused(REQUEST, "--config", kept("seed: 1"), says="required: IN")


def test_what_the_command_line_says_is_not_blamed_on_the_file(refused: Refused) -> None:
    said = refused(REQUEST, "in.onnx", "o.onnx", "--ratio", "1.5", "--config", kept("ratio: 0.5"), says="not 1.5")
    assert "fold.yaml" not in said


# to the file --------------------------------------------------------------------------------------------------------

PRINTED = {
    "fold": ["in.onnx", "out.onnx", "--ratio", "30%", "--include", "a", "--include", "#2", "--input-shape", "x:1,2"],
    "quantize": ["in.onnx", "out.onnx", "--quantize", "--scheduler", "tcp://a:1", "--preprocess", "0.5,0.5,nchw"],
    "sweep": ["sweep", "in.onnx", "--at", ".9,70%", "--allow", "fold,fp16"],
    "compare": ["compare", "a.onnx", "b.onnx", "--seed", "3"],
    "layers": ["layers", "in.onnx", "--top", "3", "--whole-blocks"],
    "fuse": ["in.onnx", "out.onnx", "--fuse", "mix", "--share", "25%", "--no-align"],
    "drop": ["in.onnx", "out.onnx", "--drop-blocks", "25%"],
    "nothing yet": [],
}


@pytest.mark.parametrize("what", PRINTED)
def test_what_is_printed_reads_back(what: str, capsys: Capture, tmp_path: Path) -> None:
    given = PRINTED[what]
    command = given[:1] if given and given[0] in ("sweep", "compare", "layers") else []
    assert main([*given, "--print-config"]) == 0
    text = capsys.readouterr().out
    kept(text)
    assert main([*command, "--config", "fold.yaml", "--print-config"]) == 0
    assert capsys.readouterr().out == text and sorted(p.name for p in tmp_path.iterdir()) == ["fold.yaml", "in.onnx"]
    module = {"sweep": sweep, "compare": compare, "layers": layers, "fuse": fuse, "drop": fuse}.get(what, fold)
    config, rest = config_of(["--config", "fold.yaml"])
    assert config is not None
    read = module.parser().without_files().parsed(config.words(module.parser(), rest))
    assert read == module.parser().without_files().parsed(given[len(command) :])


def test_what_is_not_set_is_there_as_a_comment(capsys: Capture) -> None:
    """Every option is in the text once, so that nobody has to look for its name; without its mark it sets it."""
    assert main(["in.onnx", "out.onnx", "--ratio", "30%", "--print-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("# Not set:")
    unset = [line.removeprefix("# ").partition(":")[0] for line in lines[at + 1 :]]
    assert {"target-macs", "max-error", "calibration", "report", "include", "steps"} <= set(unset)
    assert "# target-macs: F           share of the multiply-adds to keep, 0 to 1" in lines
    named = [line.partition(":")[0] for line in lines[1:at]]
    assert "ratio" in named and not set(named) & set(unset)
    shown = {
        o[2:] for a in fold.parser()._actions if a.help != "==SUPPRESS==" for o in a.option_strings if o[:2] == "--"
    }
    assert shown - {"help", "version", "config", "print-config"} <= {*named, *unset}


def test_all_that_a_command_takes_may_be_in_the_file() -> None:
    """Every option but those that are about the run itself; `cache` takes no file."""
    dests = {a.dest for a in fold.parser()._actions} - {"help", "version", "config", "print_config"}
    assert main(["--print-config"]) == 0 and len(dests) > 40
    assert main(["cache", "show", "--print-config"]) == REQUEST
    assert "--config" not in {o for a in cache.parser()._actions for o in a.option_strings}
