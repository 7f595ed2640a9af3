"""What README.md and docs/ say is so: code blocks, commands, options, files, links. (What --help says is tested in
test_cli.py.)"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from tiny import ROOT

from onnxfold.cli.main import main
from onnxfold.cli.parser import Parser

README = ROOT / "README.md"
ADDING = ROOT / "docs" / "adding-an-op.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST_RULE = 20  # lines, its test included: what a rule may cost

NAMED_BLOCK = re.compile(r"^In `([^`\n]+)`[^\n]*\n(?:[^\n]+\n)*\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED_FILE = re.compile(r"(?<![\w./-])(?:models|docs|tests|benchmarks|onnxfold)/[\w./-]*\.(?:onnx|md|py)\b")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
FOREIGN = re.compile(  # the beginnings of commands whose options are not ours
    r"pip3? |pytest |cmake |ctest |ruff |mypy |git |apt |apt-get |docker "
    r"|olive |onnxsim |onnxslim |optimum-cli |polygraphy "
    r"|python3? (-m (pip|pytest|venv|build|ruff|mypy) |(benchmarks|models)/)"
)
BEFORE_A_COMMAND = re.compile(r"^\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\S*/(?=pip|pytest|python))?")
HIDDEN = {"--clusterer", "--metric-timeout"}  # pages tell of them, the help, which is long enough, does not


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_named_blocks_are_all_the_python_of_the_page() -> None:
    assert len(NAMED_BLOCK.findall(text(ADDING))) == text(ADDING).count("```python") > 0


@pytest.mark.parametrize(("file", "code"), NAMED_BLOCK.findall(text(ADDING)))
def test_code_of_adding_an_op_is_in_the_file_it_names(file: str, code: str) -> None:
    assert code in text(ROOT / file), f"docs/adding-an-op.md shows other code than {file} holds:\n{code}"


def test_a_rule_and_its_test_are_short() -> None:
    lines = [line for _, code in NAMED_BLOCK.findall(text(ADDING)) for line in code.splitlines() if line]
    assert len(lines) < LONGEST_RULE


RETIRED = re.compile(  # words that glossary.md has others for, and British spelling
    r"\b(makers?|refitt(?:ed|ing)|refits|gauge|crew|shelf|what no rule speaks of|nothing to aim at|neighbours?"
    r"|behaviour|unlabelled|centred|\w*(?:quanti|normali|optimi|generali|initiali|summari)s(?:e|es|ed|ing|er|ation)|analys(?:ed?|er))\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_pages_use_the_words_of_the_glossary(page: Path) -> None:
    assert not RETIRED.findall(text(page)), f"{page.name}: {RETIRED.findall(text(page))}"


# commands -----------------------------------------------------------------------------------------------------------


def block_after(marker: str, page: str) -> list[str]:
    """The lines of the code block after ``<!-- marker -->``, which stands there once."""
    mark = f"<!-- {marker} -->"
    assert page.count(mark) == 1, f"{mark} stands {page.count(mark)} times"
    block = re.match(r"\s*```\w*\n(.*?)^```$", page.partition(mark)[2], re.MULTILINE | re.DOTALL)
    assert block, f"no code block after {mark}"
    return block[1].splitlines()


@pytest.mark.parametrize(("marker", "word"), [("main command", "onnxfold"), ("test command", "pytest")])
def test_the_commands_of_the_readme(marker: str, word: str) -> None:
    lines = block_after(marker, text(README))
    assert len(lines) == 1 and word in lines[0], lines


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    missing = [name for name in NAMED_FILE.findall(text(page)) if not (ROOT / name).exists()]
    assert not missing, f"{page.name} names {missing}"


def options_in(page: str) -> set[str]:
    """All options that a page mentions, but for those in commands of other programs."""
    parts = re.split(r"\n|&&|[|;`]", page.replace("\\\n", " "))
    commands = [BEFORE_A_COMMAND.sub("", part) for part in parts]
    return {option for command in commands if not FOREIGN.match(f"{command} ") for option in OPTION.findall(command)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_options_that_a_page_mentions_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    main(["compare", "--help"])
    main(["sweep", "--help"])
    main(["layers", "--help"])
    main(["cache", "--help"])
    main(["in.onnx", "out.onnx", "--fuse", "mean", "--help"])
    ours = set(OPTION.findall(capsys.readouterr().out))
    unknown = options_in(text(page)) - ours - HIDDEN
    assert not unknown, f"{page.name} mentions {sorted(unknown)}"


@pytest.mark.parametrize("option", sorted(HIDDEN))
def test_hidden_options_exist(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["in.onnx", "out.onnx", option, "?"]) == 2
    assert f"argument {option}" in capsys.readouterr().err


def command_lines(page: str) -> Iterator[str]:
    """The commands in the code blocks of a page that run onnxfold, without prompt and remark."""
    fenced = False
    for line in page.replace("\\\n", " ").splitlines():
        fenced ^= line.startswith("```")
        if fenced or line.startswith("    "):
            for part in line.split(" && "):
                command = re.match(r"(?:\S*python3? -m )?(onnxfold .*)", BEFORE_A_COMMAND.sub("", part))
                if command:
                    yield command[1]


COMMAND_LINES = [(page.name, command) for page in PAGES for command in command_lines(text(page))]


def test_all_commands_are_seen() -> None:
    assert {name for name, _ in COMMAND_LINES} >= {"README.md", "chain.md", "fusion.md", "large-models.md"}
    assert len(COMMAND_LINES) > 20


def parsed(command: str, patch: pytest.MonkeyPatch) -> int:
    """The exit code of the command line, which ends as soon as its parser has accepted what is given."""

    def accepted(self: Parser, *args: Any, **kwargs: Any) -> NoReturn:
        argparse.ArgumentParser.parse_args(self, *args, **kwargs)
        raise SystemExit(0)

    patch.setattr(Parser, "parsed", accepted)
    return main(shlex.split(command, comments=True)[1:])


@pytest.mark.parametrize(("page", "command"), COMMAND_LINES)
def test_commands_are_accepted(
    page: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = parsed(command, monkeypatch)
    assert code == 0, f"{page}: {command}\n{capsys.readouterr().err}"


# links --------------------------------------------------------------------------------------------------------------


LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(page: str) -> set[str]:
    """What a link into a page can name: its headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for file, anchor in LINK.findall(text(page)):
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(text(target))):
            dead.append(f"{file}#{anchor}" if anchor else file)
    assert not dead, f"{page.name} links to {dead}"


def test_every_page_can_be_found() -> None:
    """From README.md, by links."""
    seen, todo = set[Path](), [README]
    while todo:
        page = todo.pop()
        if page not in seen and page.suffix == ".md":
            seen.add(page)
            linked = [(page.parent / file).resolve() for file, _ in LINK.findall(text(page)) if file]
            todo += [target for target in linked if target.exists()]
    assert set(PAGES) <= seen, sorted(str(page.relative_to(ROOT)) for page in set(PAGES) - seen)


# the checks see what they are for -----------------------------------------------------------------------------------


def test_options_are_found_where_they_stand() -> None:
    page = """Take `--one` or --two=3, not a--b or | --- |.
    ```
    $ onnxfold a.onnx b.onnx --three 3 && .venv/bin/pip install --upgrade . | cmake --build x
    python3 -m venv --clear .venv && X=1 .venv/bin/python -m onnxfold a.onnx \\
        --four && python -m pytest --lf
    ```
    `pytest --slow` and `python benchmarks/accuracy.py --net x`, but `python -m onnxfold --five`"""
    assert options_in(page) == {"--one", "--two", "--three", "--four", "--five"}


def test_files_are_found_where_they_stand() -> None:
    page = "[a](docs/report.md), `models/no.onnx`. onnxfold/rules/conv.py; ../models/x.onnx rules/conv.py onnxfold/"
    assert NAMED_FILE.findall(page) == ["docs/report.md", "models/no.onnx", "onnxfold/rules/conv.py"]


def test_named_blocks_are_found_with_their_file() -> None:
    page = "Text.\n\nIn `a/b.py`, at\nthe end:\n\n```python\nx = 1\n\n    y\n```\n\n```python\nz\n```\n"
    assert NAMED_BLOCK.findall(page) == [("a/b.py", "x = 1\n\n    y\n")]


@pytest.mark.parametrize(
    "page", ["", "<!-- m -->\ntext\n```\nx\n```\n", "<!-- m -->\n```\nx\n```\n<!-- m -->\n```\ny\n```\n"]
)
def test_a_marker_without_its_block_is_caught(page: str) -> None:
    with pytest.raises(AssertionError, match="<!-- m -->"):
        block_after("m", page)
    assert block_after("m", "<!-- m -->\n\n```sh\na\nb\n```\n") == ["a", "b"]


def test_commands_are_found_where_they_stand() -> None:
    page = """onnxfold is prose.
```
$ onnxfold a.onnx b.onnx --ratio 0.3   # a remark
python3 -m venv .venv && .venv/bin/python -m onnxfold c.onnx \\
    --inspect
pip install onnxfold
```
    onnxfold sweep d.onnx
"""
    assert [" ".join(shlex.split(line, comments=True)) for line in command_lines(page)] == [
        "onnxfold a.onnx b.onnx --ratio 0.3", "onnxfold c.onnx --inspect", "onnxfold sweep d.onnx",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("onnxfold a.onnx b.onnx --ratio 0.3", 0), ("onnxfold a.onnx b.onnx --ratios 0.3", 2),
        ("onnxfold sweep a.onnx", 0), ("onnxfold sweep", 2), ("onnxfold layers a.onnx --top x", 2),
        ("onnxfold a.onnx b.onnx --fuse mean --share 25", 0), ("onnxfold a.onnx b.onnx --share 25", 2),
    ],
)  # fmt: skip
def test_a_command_that_the_parser_refuses_is_caught(
    command: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parsed(command, monkeypatch) == code
    assert bool(capsys.readouterr().err) == bool(code)


def test_a_dead_link_is_caught() -> None:
    assert LINK.findall("[a](b.md) [c](d.md#e) [f](#g) [h](https://i)") == [("b.md", ""), ("d.md", "e"), ("", "g")]
    assert anchors("# A word\n## And `code`, too\n") == {"a-word", "and-code-too"}


def test_retired_words_are_found() -> None:
    assert RETIRED.findall("A quantised Reader, its makers; Analyse analysis, quantized, refit") == [
        "quantised", "makers", "Analyse",
    ]  # fmt: skip
