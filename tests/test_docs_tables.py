"""What docs/ repeat of the code is as in the code: the picture and the map of the packages, the table of options."""

from __future__ import annotations

import doctest
import re
from collections.abc import Mapping, Sequence

from test_structure import GROUND, MAY_IMPORT
from tiny import ROOT

from onnxfold.options import keywords
from onnxfold.options.parameters import PARAMETERS

ARCHITECTURE = ROOT / "docs" / "architecture.md"
OPTIONS = ROOT / "docs" / "options.md"

# the picture of the packages ------------------------------------------------------------------------------------------


def reduced(table: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The table without what follows from the rest: who may import A need not be told of what A may import.

    >>> reduced({"a": (), "b": ("a",), "c": ("a", "b")})
    {'a': [], 'b': ['a'], 'c': ['b']}
    """

    def below(name: str) -> set[str]:
        return {deeper for one in table[name] for deeper in (one, *below(one))}

    return {
        name: [one for one in allowed if not any(one in below(other) for other in allowed)]
        for name, allowed in table.items()
    }


def picture(table: Mapping[str, Sequence[str]]) -> str:
    """The import table as a Mermaid diagram, an arrow from a package to what it builds on."""
    arrows = reduced({name: allowed for name, allowed in table.items() if name not in GROUND})
    lines = [f"    {name} --> {' & '.join(below)}" for name, below in reversed(arrows.items()) if below]
    return "\n".join(["```mermaid", "graph TD", *lines, "```"])


def test_the_picture_is_the_import_table() -> None:
    found = re.findall(r"^```mermaid\n.*?^```$", ARCHITECTURE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found == [picture(MAY_IMPORT)], f"put this into docs/architecture.md:\n{picture(MAY_IMPORT)}"


def allowed_in_words(table: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """By package, what it may import as the package map says it: names, or what is missing from all before it."""
    out, before = dict[str, str](), list[str]()
    for name, allowed in table.items():
        if name in GROUND:
            continue
        missing = [one for one in before if one not in allowed]
        names = ", ".join(f"`{one}`" for one in allowed)
        if len(allowed) > len(missing) and len(allowed) > 5:
            out[name] = "all above" + (f" but {', '.join(f'`{one}`' for one in missing)}" if missing else "")
        else:
            out[name] = names or "nothing"
        before.append(name)
    return out


def test_the_package_map_is_the_import_table() -> None:
    rows = re.findall(
        r"^\| `(\w+)/?(?:\.py)?` \|[^|\n]*\| ([^|\n]+) \|$", ARCHITECTURE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert dict(rows) == allowed_in_words(MAY_IMPORT)


def test_the_picture_leaves_out_what_follows() -> None:
    table = {"errors": (), "a": (), "b": ("a",), "c": ("a", "b"), "d": ("a", "c")}
    assert picture(table) == "```mermaid\ngraph TD\n    d --> c\n    c --> b\n    b --> a\n```"
    assert picture({**table, "c": ("a",)}) != picture(table)


# options ------------------------------------------------------------------------------------------------------------


TAKEN = {  # function -> its keywords, and what its signature names besides
    "fold": {*keywords.FoldKeywords.__annotations__, "output"},
    "fuse": {*keywords.FuseKeywords.__annotations__, "output"},
    "sweep": {*keywords.SweepKeywords.__annotations__, "at"},
    "choose": {*keywords.ChooseKeywords.__annotations__, "at"},
    "rank_layers": {*keywords.RankKeywords.__annotations__},
    "compare": {*keywords.CompareKeywords.__annotations__},
}


def options_table() -> str:
    """All parameters as Markdown, in the order of `PARAMETERS`."""
    lines = ["| parameter | what it is for | what it may be | taken by |", "|---|---|---|---|"]
    for name, one in PARAMETERS.items():
        by = ", ".join(f"`{function}`" for function, taken in TAKEN.items() if name in taken)
        lines.append(f"| `{name}` | {one.purpose} | {one.may_be} | {by} |")
    return "\n".join(lines)


def test_the_table_of_options_is_that_of_the_code() -> None:
    table = options_table()
    assert f"\n{table}\n" in OPTIONS.read_text(encoding="utf-8"), f"put this into docs/options.md:\n{table}"


def test_every_keyword_is_a_parameter() -> None:
    assert set().union(*TAKEN.values()) - set(PARAMETERS) == {"folding"}  # holds keywords of fold itself
    assert all(line.count(" | ") == 3 and not line.endswith("|  |") for line in options_table().splitlines()[2:])


def test_the_examples_of_options() -> None:
    assert ">>> " in OPTIONS.read_text(encoding="utf-8")
    assert doctest.testfile(str(OPTIONS), module_relative=False).failed == 0
