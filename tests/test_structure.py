"""Imports point one way, and files stay short enough to read: the promises of docs/architecture.md, by machine."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "onnxfold"
LONGEST_FILE = 500  # lines; a file that is longer does two things
RULES_MAY = ("onnxfold.facts", "onnxfold.view", "onnxfold.errors", "onnxfold.rules", "numpy", *sys.stdlib_module_names)
ONNX = ("onnx", "onnx_graphsurgeon", "onnxruntime")
WITHOUT_ONNX = ("onnxfold.plan", "onnxfold.cluster", "onnxfold.merge", "onnxfold.features")
WITHOUT_ONNX_AT_ALL = WITHOUT_ONNX[:3]  # nor do the modules that they import
ONLY_IN = {
    "onnx_graphsurgeon": "onnxfold.graph",
    "onnxruntime": "onnxfold.session",
    "onnxruntime.quantization": "onnxfold.integers.quantiser",
    "onnx_ad": "onnxfold.gradient.reverse",
    "onnxfold._core": "onnxfold._native",
}
OWN_PATH = ("onnxfold._native", "onnxfold")  # not a cycle: it takes the package's folder list and nothing else


@dataclass(frozen=True)
class Import:
    """One imported name: ``from .facts import Tie`` in onnxfold/view.py has the target onnxfold.facts.Tie."""

    module: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.module} (line {self.line}) imports {self.target}"


def imports_of(source: str, module: str, package: bool = False) -> list[Import]:
    """All imports of a module's source, also those inside functions."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [Import(module, node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) - node.level + package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found += [Import(module, node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def within(name: str, parts: Iterable[str]) -> bool:
    """Whether `name` is one of `parts` or lies in one."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def forbidden(imports: Iterable[Import]) -> list[str]:
    """What the layers do not allow, one sentence for each import."""
    found = []
    for one in imports:
        if within(one.module, ["onnxfold.rules"]) and not within(one.target, RULES_MAY):
            found.append(f"{one}: a rule sees facts and views only")
        if one.module in WITHOUT_ONNX and within(one.target, ONNX):
            found.append(f"{one}: this module works on plain arrays")
        for what, where in ONLY_IN.items():
            special = any(within(one.target, [other]) for other in ONLY_IN if other != what and within(other, [what]))
            if within(one.target, [what]) and not special and one.module != where:
                found.append(f"{one}: only {where} may")
    return found


def edges(imports: Iterable[Import], modules: Iterable[str]) -> dict[str, dict[str, Import]]:
    """Who imports whom among `modules`, with the first import of each."""
    known = set(modules)
    out: dict[str, dict[str, Import]] = {module: {} for module in known}
    for one in imports:
        target = one.target
        while target and target not in known:
            target = target.rpartition(".")[0]
        if target and (one.module, target) != OWN_PATH:
            out[one.module].setdefault(target, one)
    return out


def cycle(imports: Sequence[Import], modules: Iterable[str]) -> list[str]:
    """The imports of one cycle, or nothing."""
    graph = edges(imports, modules)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(graph[b][a]) for a, b in pairwise(error.args[1])]
    return []


def onnx_behind(start: str, imports: Sequence[Import], modules: Iterable[str]) -> list[str]:
    """The imports of ONNX that `start` meets, also through other modules."""
    graph, seen, todo = edges(imports, modules), set[str](), [start]
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += graph[module]
    return [str(one) for one in imports if one.module in seen and within(one.target, ONNX)]


def project() -> dict[str, tuple[Path, bool]]:
    """Module name -> file, and whether it is a package."""
    files = sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")])
    out = {}
    for file in files:
        parts = ["onnxfold", *file.relative_to(PACKAGE).with_suffix("").parts]
        package = parts[-1] == "__init__"
        out[".".join(parts[:-1] if package else parts)] = (file, package)
    return out


MODULES = project()
IMPORTS = [
    one
    for module, (file, package) in MODULES.items()
    for one in imports_of(file.read_text(encoding="utf-8"), module, package)
]


# the project --------------------------------------------------------------------------------------------------------


def test_all_modules_are_seen() -> None:
    """A walk that finds nothing would pass everything."""
    assert {"onnxfold", "onnxfold.rules", "onnxfold.rules.conv", "onnxfold._core", "onnxfold.flow"} <= set(MODULES)
    named = {*WITHOUT_ONNX, *ONLY_IN.values()}
    assert named <= set(MODULES), f"renamed? {named - set(MODULES)}"
    for what, where in ONLY_IN.items():
        assert any(one.module == where and within(one.target, [what]) for one in IMPORTS), f"{where} without {what}"


def test_layers() -> None:
    assert not forbidden(IMPORTS), "\n".join(forbidden(IMPORTS))


def test_no_cycle() -> None:
    assert not cycle(IMPORTS, MODULES), "\n".join(cycle(IMPORTS, MODULES))


@pytest.mark.parametrize("module", WITHOUT_ONNX_AT_ALL)
def test_no_onnx_behind(module: str) -> None:
    assert not onnx_behind(module, IMPORTS, MODULES), "\n".join(onnx_behind(module, IMPORTS, MODULES))


def test_files_are_short() -> None:
    lines = {str(file): len(file.read_text(encoding="utf-8").splitlines()) for file, _ in MODULES.values()}
    assert not {file: count for file, count in lines.items() if count > LONGEST_FILE}


# the checks see what they are for -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "source", "offence"),
    [
        ("onnxfold.rules.made_up", "from ..graph import Node", "line 1) imports onnxfold.graph.Node"),
        ("onnxfold.rules.made_up", "from .. import model", "imports onnxfold.model"),
        ("onnxfold.rules.made_up", "from onnxfold.shapevalues import Value", "imports onnxfold.shapevalues.Value"),
        ("onnxfold.rules.made_up", "import math\nimport onnx.helper as h", "line 2) imports onnx.helper"),
        ("onnxfold.rules.made_up", "def f():\n    import onnxruntime", "line 2) imports onnxruntime"),
        ("onnxfold.plan", "from onnx import ModelProto", "imports onnx.ModelProto: this module works on plain arrays"),
        ("onnxfold.emit", "import onnx_graphsurgeon as gs", "imports onnx_graphsurgeon: only onnxfold.graph may"),
        ("onnxfold.cluster", "from . import _core", "imports onnxfold._core: only onnxfold._native may"),
        ("onnxfold.session", "import onnxruntime.quantization", "only onnxfold.integers.quantiser may"),
        ("onnxfold.integers.quantiser", "import onnxruntime as ort", "only onnxfold.session may"),
    ],
)
def test_a_forbidden_import_is_caught(module: str, source: str, offence: str) -> None:
    found = forbidden(imports_of(source, module))
    assert found and offence in found[0], found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("onnxfold.rules.made_up", "import math\nimport numpy as np\nfrom ..facts import Tie\nfrom .table import Rule"),
        ("onnxfold.plan", "import onnxfold_extra\nfrom .errors import PlanError"),
        ("onnxfold.session", "import onnxruntime as ort"),
    ],
)
def test_an_allowed_import_is_not(module: str, source: str) -> None:
    assert forbidden(imports_of(source, module)) == []


def test_a_cycle_is_caught() -> None:
    sources = {"onnxfold.a": "from .b import x", "onnxfold.b": "def f():\n    from . import c", "onnxfold.c": ""}
    straight = [one for module, source in sources.items() for one in imports_of(source, module)]
    assert cycle(straight, sources) == []
    found = cycle([*straight, *imports_of("import onnxfold.a", "onnxfold.c")], sources)
    assert sorted(found) == [
        "onnxfold.a (line 1) imports onnxfold.b.x",
        "onnxfold.b (line 2) imports onnxfold.c",
        "onnxfold.c (line 1) imports onnxfold.a",
    ]


def test_onnx_behind_another_module_is_caught() -> None:
    sources = {"onnxfold.plan": "from .b import x", "onnxfold.b": "import onnx"}
    imports = [one for module, source in sources.items() for one in imports_of(source, module)]
    assert onnx_behind("onnxfold.plan", imports, sources) == ["onnxfold.b (line 1) imports onnx"]


def test_packages_count_their_own_name() -> None:
    """``from . import conv`` means something else in ``rules/__init__.py`` than in ``rules/conv.py``'s neighbours."""
    assert imports_of("from . import conv", "onnxfold.rules", True)[0].target == "onnxfold.rules.conv"
    assert imports_of("from . import conv", "onnxfold.rules.norm")[0].target == "onnxfold.rules.conv"
    assert imports_of("from ..facts import Tie", "onnxfold.rules.norm")[0].target == "onnxfold.facts.Tie"
