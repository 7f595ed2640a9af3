"""Help at the width of the terminal."""

from __future__ import annotations

import argparse

import pytest

from onnxfold.cli import cache, compare, completion, fold, fuse, layers, report, sweep
from onnxfold.cli.layout import WIDEST, Layout
from onnxfold.cli.main import main
from onnxfold.cli.spelled import OWN_HELP

MODULES = (cache, compare, completion, fold, fuse, layers, report, sweep, *OWN_HELP.values())


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(getattr(m, "name", getattr(m, "__name__", ""))))
def test_nothing_is_wider_than_the_terminal(module: object, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = module.parser().format_help().splitlines()  # type: ignore[attr-defined]
    long = [line for line in lines if len(line) > min(width, WIDEST)]
    assert all(max(map(len, line.split())) > width - 10 for line in long), long  # a path that cannot be cut
    assert max(map(len, lines)) > 0.7 * min(width, WIDEST)  # the width is used


SHORT = {
    "inspect": (["--include", "--input-shape"], ["--ratio", "--quantize", "--fuse", "OUT"], "-v lists every group", 45),
    "quantize": (["--quantize", "--calibration"], ["--ratio", "--max-error", "--fuse"], "Default: int8", 65),
    "share": (["--fuse", "--share", "--max-error"], ["--drop-blocks", "--ratio"], "Default: as many layers", 80),
    "drop": (["--drop-blocks", "--refine"], ["--fuse HOW", "--share", "--distance"], "There is no default", 70),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_command_shows_what_matters_to_it(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 columns: what it does, its default, an example that begins with its name; no option of another command."""
    monkeypatch.setenv("COLUMNS", "80")
    there, elsewhere, default, longest = SHORT[name]
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0].startswith(f"usage: onnxfold {name} IN") and len(lines) <= longest
    assert any(line.startswith(f"  onnxfold {name} in.onnx") for line in lines)
    assert all(word in text for word in (*there, default)) and not any(f"  {word}" in text for word in elsewhere)
    hidden = OWN_HELP[name].parser()._option_string_actions
    assert set(hidden) == set(OWN_HELP[name].base.parser()._option_string_actions), "and takes all that it took"


def shown(width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    usage = "x IN OUT   make it\n       x look IN   look at it, and at nothing else at all"
    about = "One line\nand another one.\n\n  x a b             does this\n  x a b --much 3    does that and more\n"
    made = argparse.ArgumentParser("x", usage, about, formatter_class=Layout, add_help=False)
    made.add_argument_group("things to be told about at length").add_argument("--much", help="how much it is")
    return made.format_help()


def test_words_stand_beside_commands_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(80, monkeypatch).splitlines() == [
        "usage:", "  x IN OUT    make it", "  x look IN   look at it, and at nothing else at all", "",
        "One line and another one.", "",
        "  x a b            does this", "  x a b --much 3   does that and more", "",
        "things to be told about at length:", "  --much MUCH  how much it is",
    ]  # fmt: skip


def test_and_below_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(30, monkeypatch).splitlines() == [
        "usage:", "  x IN OUT", "      make it", "  x look IN", "      look at it, and at",
        "      nothing else at all", "",
        "One line and another one.", "",
        "  x a b", "      does this", "  x a b --much 3", "      does that and more", "",
        "things to be told about at", "length:", "  --much MUCH", "          how much it is",
    ]  # fmt: skip


def test_groups_say_what_they_hold() -> None:
    titles = [group.title for group in fold.parser()._action_groups if group._group_actions]
    assert titles[0] == "files" and len(titles) == 9 and len(set(titles)) == 9 and all(titles)
