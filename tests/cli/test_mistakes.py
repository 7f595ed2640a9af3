"""Plausible mistakes: each ends in its exit code and one line that says what to do."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from refusals import MODEL, NOTHING, REQUEST
from samples import save_image
from tiny import TEXT, net, snapshot, write, write_external

from onnxfold import __version__
from onnxfold.cli.main import main

IO = "in.onnx out.onnx"
MISTAKES: dict[str, tuple[int, str]] = {
    # files
    "": (REQUEST, "the following arguments are required: IN (try --help)"),
    "in.onx out.onnx": (MODEL, "in.onx does not exist: did you mean 'in.onnx'?"),
    "nothing.like.it out.onnx": (MODEL, "nothing.like.it does not exist: check the path"),
    "model.pt out.onnx": (MODEL, "model.pt is a PyTorch file: export it with torch.onnx.export"),
    "model.tflite out.onnx": (MODEL, "model.tflite is a TensorFlow file: export it with tf2onnx"),
    "notes.txt out.onnx": (MODEL, "notes.txt is not an ONNX model, or is truncated: export or download it again"),
    "folder out.onnx": (MODEL, "folder is a folder: name the .onnx file in it"),
    "outside.onnx out.onnx": (MODEL, "weights.bin"),
    "in.onnx": (REQUEST, "name the output file: onnxfold IN OUT (or add --inspect to write nothing)"),
    "in.onnx in.onnx": (REQUEST, "in.onnx is the input itself: choose another output"),
    "in.onnx folder": (REQUEST, "folder is a folder: name the file to write"),
    "in.onnx none/out.onnx": (REQUEST, "none does not exist: create it first"),
    "in.onnx -": (REQUEST, "argument OUT: name a file: nothing is read from standard input or written to standard"),
    "- out.onnx": (REQUEST, "argument IN: name a file"),
    "in.onnx ./-": (REQUEST, "a model goes to an .onnx file, not to -: name -.onnx, for example"),
    f"{IO} --save-plan -": (REQUEST, "argument --save-plan: name a file"),
    f"{IO} --report -": (REQUEST, "argument --report: name a file"),
    f"{IO} --synthetic -": (REQUEST, "argument --synthetic: name a file"),
    f"{IO} --calibration -": (REQUEST, "argument --calibration: name a file"),
    f"{IO} --config dash.yaml": (REQUEST, "dash.yaml: 'save-plan': name a file"),
    "report r.json -": (REQUEST, "argument HTML: name a file"),
    "in.onnx out.txt": (REQUEST, "a model goes to an .onnx file, not to out.txt: name out.onnx, for example"),
    "in.onnx out": (REQUEST, "a model goes to an .onnx file, not to out: name out.onnx, for example"),
    "in.onnx out.onnx.gz": (REQUEST, "models are written as they are: name out.onnx, then compress it"),
    "share in.onnx out.txt": (REQUEST, "a model goes to an .onnx file, not to out.txt"),
    "in.onnx out.onnx more.onnx": (REQUEST, "unrecognized arguments: more.onnx: onnxfold takes IN OUT"),
    "in.onnx -o out.onnx": (REQUEST, "files have no options, name IN OUT alone"),
    # commands
    "swep in.onnx": (REQUEST, "'swep' is neither a command nor a file: did you mean onnxfold sweep?"),
    "quantise in.onnx out.onnx": (REQUEST, "did you mean onnxfold quantize?"),
    "sweep in.onnx out.onnx": (REQUEST, "out.onnx: onnxfold sweep takes IN and writes no model"),
    "in.onnx sweep": (REQUEST, "'sweep' is a command, and commands come first: onnxfold sweep in.onnx"),
    "in.onnx out.onnx sweep --at .8": (REQUEST, "commands come first: onnxfold sweep in.onnx"),
    "prune in.onnx out.onnx": (REQUEST, "'prune' is neither a command nor a file: commands are cache, compare, "),
    "version": (REQUEST, "did you mean onnxfold --version?"),
    "--verison": (REQUEST, "unrecognized arguments: --verison: did you mean --version?"),
    "compare in.onnx": (REQUEST, "the following arguments are required: B: onnxfold compare A B [options]"),
    "drop in.onnx out.onnx": (REQUEST, "say how many residual blocks go, like onnxfold drop IN OUT --drop-blocks 25%"),
    "cache shwo": (REQUEST, "did you mean show?"),
    "completion sh": (REQUEST, "argument SHELL: sh cannot complete options: did you mean bash?"),
    "completion": (REQUEST, "required: SHELL: onnxfold completion bash|zsh|fish"),
    "completion csh": (REQUEST, "invalid choice: 'csh' (choose from bash, zsh, fish)"),
    "report r.json r.txt": (REQUEST, "the page is an .html file, not r.txt: name one"),
    "report in.onnx r.html": (REQUEST, "in.onnx is not an onnxfold report"),
    "inspect in.onnx --plan p.json": (REQUEST, "--plan goes with a fold, not with inspect, which shows what could be"),
    "in.onnx --inspect --ratio 0.3": (REQUEST, "--ratio goes with a fold, not with inspect"),
    # options
    f"{IO} --rato 0.3": (REQUEST, "unrecognized arguments: --rato 0.3: did you mean --ratio?"),
    f"{IO} --nonsense": (REQUEST, "unrecognized arguments: --nonsense (try --help)"),
    f"{IO} --int8": (REQUEST, "unrecognized arguments: --int8: did you mean --quantize int8?"),
    f"drop {IO} --drop-blocks 1 --max-error 5%": (REQUEST, "how many blocks go is said by --drop-blocks: leave"),
    f"{IO} --share 30": (REQUEST, "--share 30: that is an option of onnxfold IN OUT --fuse HOW"),
    "sweep in.onnx --ratio 0.3": (REQUEST, "--ratio 0.3: that is an option of onnxfold IN OUT"),
    f"{IO} --ratio": (REQUEST, "argument --ratio: expected one argument"),
    f"share {IO} --share 0.25": (REQUEST, "like 25 or 25%, not '0.25': did you mean 25%?"),
    f"{IO} --ratio 30": (REQUEST, "like 0.3 or a percentage like 30%, not '30': did you mean 30%?"),
    f"{IO} --ratio 0,3": (REQUEST, "argument --ratio: give a number like 0.3 or a percentage like 30%, not '0,3'"),
    f"{IO} --ratio 130%": (REQUEST, "--ratio must be a number of at least 0 and below 1, not 1.3"),
    f"{IO} --target-macs 0": (REQUEST, "--target-macs must be a number above 0 and at most 1, not 0.0"),
    f"{IO} --target-macs 0.01%": (REQUEST, "cannot be reached"),
    f"{IO} --ratio 0.3 --target-macs 0.7": (REQUEST, "pass one of --ratio, --target-macs, not several"),
    "sweep in.onnx --at 1.5": (REQUEST, "--at must be shares above 0 and at most 1, like .9,.7,.5 or 90%"),
    f"{IO} --group-ratio Conv#0=1.5": (REQUEST, "--group-ratio must be REGEX=R with R of at least 0 and below 1, like"),
    f"{IO} --input-shape x:-1,3": (REQUEST, "--input-shape must be NAME:D,D,... with lengths of at least 0, like"),
    f"{IO} --target-size 0.5 --allow fodl": (REQUEST, "--allow must be all, or several of fold, refine, int8"),
    f"{IO} --drop-blocks few": (REQUEST, "--drop-blocks must be a number of blocks or a percentage, like 3 or 25%"),
    f"{IO} --round-to 0": (REQUEST, "--round-to must be a whole number of at least 1, or auto, not 0"),
    f"{IO} --report ''": (REQUEST, "argument --report: name a file, not ''"),
    "sweep in.onnx --at 70": (REQUEST, "--at wants shares like .9,.7,.5 or 90%,70%,50%, not '70'"),
    f"{IO} --method secondorder": (REQUEST, "did you mean second-order?"),
    f"{IO} --effort quick": (REQUEST, "invalid choice: 'quick' (choose from fast, balanced, best)"),
    f"{IO} --quantize int16": (REQUEST, "invalid choice: 'int16' (choose from int8, "),
    f"{IO} --device rpi": (REQUEST, "choose from portable, x86-avx2, avx512, arm64"),
    f"{IO} --providers gpu": (REQUEST, "onnxruntime has no provider 'gpu': choose from cpu, cuda, tensorrt"),
    f"{IO} --seed abc": (REQUEST, "argument --seed: give a whole number, not 'abc'"),
    f"{IO} --round-to 8.5": (REQUEST, "argument --round-to: give a whole number like 8, or auto, not '8.5'"),
    f"{IO} --max-memory 4X": (REQUEST, "--max-memory wants a size like 4G or 500M, not '4X'"),
    f"{IO} --steps 100": (REQUEST, "--steps only works with --refine: pass both, or neither"),
    f"{IO} --max-drop 0.01": (REQUEST, "pass --metric too"),
    f"{IO} --metric mine.py": (REQUEST, "--metric must be FILE.py:FUNCTION"),
    f"{IO} --metric none.py:score": (REQUEST, "--metric: there is no file 'none.py'"),
    f"{IO} --report r.pdf": (REQUEST, "the report is a .json or an .html file, not r.pdf: name one of these"),
    f"{IO} --target-macs 70% --target-macs=60%": (REQUEST, "argument --target-macs: it is given more than once: leave"),
    f"share {IO} --share 5 --share 9": (REQUEST, "argument --share: it is given more than once: leave all but one out"),
    f"{IO} --group-ratio a=.1 --group-ratio a=.2": (REQUEST, "--group-ratio: 'a' is there twice: leave all but one"),
    f"{IO} --input-shape x:1,3,8,8 --input-shape x:2,3,8,8": (REQUEST, "--input-shape: 'x' is there twice"),
    f"{IO} --config none.yaml": (REQUEST, "cannot read the options in none.yaml: No such file"),
    f"{IO} --config fold.yaml": (REQUEST, "fold.yaml: 'target-mac' is no option of onnxfold: did you mean"),
    f"{IO} --log-level verbose": (REQUEST, "choose from debug, info, warning, error"),
    # names
    f"{IO} --include Covn#0": (NOTHING, "no group matches --include and --exclude: did you mean 'Conv#0'?"),
    f"{IO} --include 'a(b'": (REQUEST, "'a(b' is not a regular expression"),
    f"{IO} --group-ratio Covn#0=0.5": (REQUEST, "in --group-ratio: did you mean 'Conv#0'?"),
    f"{IO} --group-ratio 0.5": (REQUEST, "--group-ratio wants REGEX=R (like 'layers.7.*mlp=0.5'), not '0.5'"),
    f"{IO} --input-shape y:1,3,8,8": (REQUEST, "in.onnx has no input 'y': its inputs are x"),
    "two.onnx out.onnx --input-shape imgae:1,3,8,8": (REQUEST, "its inputs are image, mask: did you mean 'image'?"),
    f"{IO} --input-shape 1,3,8,8": (REQUEST, "--input-shape wants NAME:D,D,... (like image:1,3,224,224)"),
    # inputs
    f"{IO} --calibration data.npy": (REQUEST, "calibration data data.npy does not exist: did you mean 'data.npz'?"),
    f"{IO} --calibration notes.txt": (REQUEST, "notes.txt is not calibration data that onnxfold can read: use an .npz"),
    f"{IO} --calibration folder": (REQUEST, "the folder folder contains no calibration data: use an .npz"),
    f"{IO} --calibration nhwc.npz": (REQUEST, "they are NHWC and the model takes NCHW: give array.transpose"),
    f"{IO} --calibration u8.npz": (REQUEST, "nothing says how input 'x' expects them: pass --preprocess imagenet"),
    f"{IO} --calibration images": (REQUEST, "pass --preprocess imagenet (or 0-1, -1-1, yolo, clip, raw, or MEAN,STD"),
    f"{IO} --calibration images --preprocess imagnet": (REQUEST, "did you mean 'imagenet'?"),
    f"{IO} --calibration images --preprocess 127.5,127.5": (REQUEST, "write 127.5 of 0..255 as 127.5/255"),
    f"{IO} --calibration images --preprocess imagenet,nhwc": (REQUEST, "images have 1 or 3; try nchw"),
    "two.onnx out.onnx --calibration typo.npz": (REQUEST, "the model's inputs are image, mask: did you mean 'imgae'?"),
    f"{IO} --calibration data.npz --synthetic s.npz": (REQUEST, "--synthetic has nothing to write"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made, rng = tmp_path_factory.mktemp("mistakes"), np.random.default_rng(0)
    write(made / "in.onnx")
    two = TEXT.replace("float[N,3,8,8] x)", "float[N,3,8,8] image, float[N,3,8,8] mask)")
    write(made / "two.onnx", net(two.replace("a = Conv", "x = Add (image, mask)\n    a = Conv")))
    write_external(made / "outside.onnx")
    (made / "weights.bin").unlink()
    for name in ("notes.txt", "model.pt", "model.tflite"):
        (made / name).write_text("these are words\n", encoding="utf-8")
    (made / "mine.py").write_text("score = 3\n", encoding="utf-8")
    (made / "fold.yaml").write_text("target-mac: 0.7\n", encoding="utf-8")
    (made / "dash.yaml").write_text("save-plan: '-'\n", encoding="utf-8")
    (made / "r.json").write_text(json.dumps({"schema": 1, "version": __version__}), encoding="utf-8")
    (made / "folder").mkdir()
    x = rng.standard_normal((8, 3, 8, 8)).astype(np.float32)
    np.savez(made / "data.npz", x=x)
    np.savez(made / "nhwc.npz", x=x.transpose(0, 2, 3, 1))
    np.savez(made / "u8.npz", x=np.zeros(x.shape, np.uint8))
    np.savez(made / "typo.npz", imgae=x, mask=x)
    save_image(made / "images" / "a.png", np.zeros((8, 8, 3), np.uint8))
    return made


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, says = MISTAKES[line]
    monkeypatch.chdir(folder)
    before = snapshot(folder)
    assert main(shlex.split(line)) == code
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and shown.err.startswith("onnxfold: ")
    assert says in shown.err and "Traceback" not in shown.err
    assert not re.search(r"\(a \w+\)$|\blike \[|\{'", shown.err.rstrip()), "types and literals are Python's"
    assert snapshot(folder) == before


def test_there_are_enough() -> None:
    assert len(MISTAKES) >= 40


def test_help_is_a_word_too(capsys: pytest.CaptureFixture[str]) -> None:
    for given in (["help", "sweep"], ["sweep", "--help"], ["help"], ["--help"], ["drop", "--help"]):
        assert main(given) == 0
    shown = capsys.readouterr().out
    assert shown.count("onnxfold sweep IN [options]") == 2 and shown.count("--drop-blocks") > 1
