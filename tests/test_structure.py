"""The promises of docs/architecture.md, held by machine: who imports whom, what stands only in one place, how long
things are. Every check has a test that shows it failing."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import pytest
from sources import PACKAGE, Import, aliases, catching, cycle, edges, functions, imports_of, modules, within

LONGEST_FILE = 450  # lines; a file that is longer does two things
MOST_PARAMETERS = 7
MOST_TOP_LEVEL = 22  # names in the package's own folder

GROUND = ("compat", "errors", "frozen", "progress", "units")  # everyone may import these
_BELOW_PASSES = (
    "options", "model", "folding", "runtime", "analysis", "evaluation", "transform", "calibration", "recovery",
    "planning",
)  # fmt: skip
MAY_IMPORT: Mapping[str, Sequence[str]] = {
    "compat": (), "errors": (), "frozen": (), "progress": (), "units": (),
    "options": (),
    "model": (),
    "folding": ("options",),
    "runtime": ("model",),
    "analysis": ("model", "folding"),
    "evaluation": ("model", "runtime"),
    "transform": ("model", "folding", "analysis"),
    "calibration": ("options", "model", "runtime", "analysis"),
    "recovery": ("options", "model", "runtime", "folding", "analysis"),
    "planning": _BELOW_PASSES[:-1],
    "passes": _BELOW_PASSES,
    "report": (*(name for name in _BELOW_PASSES if name != "transform"), "passes"),
    "api": ("options", "model", "passes", "report"),
    "integrations": ("api", "options", "report"),
    "cli": ("api", "options", "calibration", "report", "runtime"),
    "testing": ("model", "runtime", "folding", "analysis", "evaluation", "transform"),
}  # fmt: skip
FACADE = ("", "__main__")  # the package itself names what is public, and `python -m onnxfold` runs it

RULES = "onnxfold.analysis.rules"
RULES_MAY = (RULES, "onnxfold.errors", "onnxfold.frozen", "numpy", *sys.stdlib_module_names)
NODE_VIEW = f"{RULES}.node_view"  # what rules see of the model, by way of this module
ONNX = ("onnx", "onnx_graphsurgeon", "onnxruntime", "onnx_ad")
ONLY_IN = {
    "onnx_graphsurgeon": "onnxfold.model.graph",
    "onnxruntime": "onnxfold.runtime.session",
    "onnxruntime.quantization": "onnxfold.passes.quantization.ort_quantizer",
    "onnxruntime.transformers": "onnxfold.passes.quantization.half",
    "onnx_ad": "onnxfold.runtime.autodiff.reverse",
    "onnxfold.folding._core": "onnxfold.folding._native",
}

BROAD: Mapping[str, str] = {
    "onnxfold.cli.main._run": "the last resort: what nobody expected ends in exit 70 and one line",
    "onnxfold.runtime.session.running": "onnxruntime's exceptions share no base class: they become ExecutionError here",
    "onnxfold.planning.cluster.connected": "whatever a transport of Dask raises",
    "onnxfold.passes.quantization.ort_quantizer.quantizing": "onnxruntime's quantizer raises what it happens upon",
    "onnxfold.evaluation.own_measure._Direct.__call__": "a function of the user's own may raise anything",
    "onnxfold.evaluation.function_process.called": "the same in a process of its own, which writes down what it was",
    "onnxfold.passes.base.Pipeline.run": "notes which passes ran, and raises it again",
    "onnxfold.passes.prepare.analyzed": "a bug is raised again unless onnx or onnxruntime refuses the model too",
}  # fmt: skip
"""Where ``except Exception`` may stand (module and function), and why."""

TIMES = {"onnxfold.planning.cluster.connected": 2}  # when it connects, and while it works; elsewhere once

FACADES = (
    "onnxfold.api.fold",
    "onnxfold.api.fuse",
    "onnxfold.api.sweep",
    "onnxfold.api.choose",
    "onnxfold.api.rank_layers",
)


DYNAMIC = (
    "onnxfold", "onnxfold.planning.cluster", "onnxfold.passes.quantization.ort_quantizer",
    "onnxfold.evaluation.function_process",
)  # fmt: skip
"""Who may import by a name that it computes: the package itself, for what is public, extras that may be missing, and
what imports a file of the user's."""


def dynamic(source: str, module: str) -> list[str]:
    """Imports that no table sees: import_module, __import__, sys.modules."""
    words = {"import_module", "__import__", "modules"}
    return [
        f"{module} (line {node.lineno}) imports by a computed name"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name | ast.Attribute)
        and (node.id if isinstance(node, ast.Name) else node.attr) in words
        if module not in DYNAMIC
    ]


def part(module: str) -> str:
    """The package (or the module beside the packages) that a module of onnxfold lies in; '' for onnxfold itself."""
    return [*module.split("."), ""][1]


def upward(imports: Iterable[Import]) -> list[str]:
    """The imports that the table does not allow."""
    found = []
    for one in imports:
        here, there = part(one.module), part(one.target)
        if not within(one.target, ["onnxfold"]) or here in FACADE or there == here or there in GROUND:
            continue
        if there in ("", "__core__", "__version__"):
            continue
        if there not in MAY_IMPORT[here]:
            found.append(f"{one}: {here} may not import {there}")
    return found


def forbidden(imports: Iterable[Import]) -> list[str]:
    """What single modules may not import, one sentence for each import."""
    found = []
    for one in imports:
        if within(one.module, [RULES]) and one.module != NODE_VIEW and not within(one.target, RULES_MAY):
            found.append(f"{one}: a rule sees facts and views only")
        for what, where in ONLY_IN.items():
            special = any(within(one.target, [other]) for other in ONLY_IN if other != what and within(other, [what]))
            if within(one.target, [what]) and not special and one.module != where:
                found.append(f"{one}: only {where} may")
    return found


def onnx_behind(start: str, imports: Sequence[Import], modules: Iterable[str]) -> list[str]:
    """The imports of ONNX that `start` meets, also through other modules."""
    graph, seen, todo = edges(imports, modules), set[str](), [start]
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += graph[module]
    return [str(one) for one in imports if one.module in seen and within(one.target, ONNX)]


def broad(source: str, module: str) -> list[str]:
    """What `catching` finds outside the places in `BROAD`."""
    places = catching(source, module)
    return [
        f"{place} (line {line}) catches everything: catch ExecutionError, or say why not"
        for number, (place, line) in enumerate(places)
        if place not in BROAD or [other for other, _ in places[:number]].count(place) >= TIMES.get(place, 1)
    ]


def flags(source: str, module: str) -> list[str]:
    """Strings with an option of the command line outside `cli`: a Python user knows parameters."""
    if part(module) == "cli":
        return []
    tree = ast.parse(source)
    documentation = set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            said = [one for one in node.body if isinstance(one, ast.Expr)]
            documentation |= {
                id(one.value) for one in said if one is node.body[0] or not isinstance(node, ast.FunctionDef)
            }
    return [
        f"{module} (line {node.lineno}) says {node.value!r}: options of the command line belong in cli"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
        if re.search(r"(?<![\w-])--[a-z]", node.value)
    ]


def too_many(source: str, module: str) -> list[str]:
    """Functions of more than `MOST_PARAMETERS` parameters that are no facades."""
    found = []
    for name, function in functions(ast.parse(source), module):
        given = function.args
        named = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs) if a.arg not in ("self", "cls")]
        named += [a.arg for a in (given.vararg, given.kwarg) if a is not None]
        if len(named) > MOST_PARAMETERS and name not in FACADES:
            found.append(f"{name} takes {len(named)} parameters")
    return found


def writable(source: str, module: str, arrays: Iterable[str]) -> list[str]:
    """Frozen dataclasses with arrays that their ``__post_init__`` does not make read-only."""
    words, found = {"NDArray", *arrays}, []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef) or "frozen=True" not in "".join(map(ast.unparse, node.decorator_list)):
            continue
        fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
        held = [one for one in fields if words & {n.id for n in ast.walk(one.annotation) if isinstance(n, ast.Name)}]
        held = [one for one in held if not re.search("Callable|Iterator", ast.unparse(one.annotation))]  # hold none yet
        made = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__post_init__"]
        if held and not any("read_only" in ast.unparse(one) for one in made):
            found.append(
                f"{module}.{node.name} (line {node.lineno}) is frozen, its arrays are not: call read_only(self)"
            )
    return found


MODULES = modules()
SOURCES = {module: file.read_text(encoding="utf-8") for module, (file, _) in MODULES.items()}


@cache  # not while tests are collected, which every process does
def imports() -> list[Import]:
    """All imports of the project."""
    return [one for module, source in SOURCES.items() for one in imports_of(source, module, MODULES[module][1])]


@cache
def arrays() -> set[str]:
    """The names of the project that stand for arrays."""
    return aliases(map(ast.parse, SOURCES.values()))


def everywhere(check: Iterable[list[str]]) -> list[str]:
    return [line for lines in check for line in lines]


# the project --------------------------------------------------------------------------------------------------------


def test_all_modules_are_seen() -> None:
    """A walk that finds nothing would pass everything."""
    assert {"onnxfold", RULES, f"{RULES}.conv", "onnxfold.folding._core", "onnxfold.api"} <= set(MODULES)
    assert {part(module) for module in MODULES} == {*MAY_IMPORT, *FACADE}
    assert set(ONLY_IN.values()) <= set(MODULES), f"renamed? {set(ONLY_IN.values()) - set(MODULES)}"
    for what, where in ONLY_IN.items():
        assert any(one.module == where and within(one.target, [what]) for one in imports()), f"{where} without {what}"


def test_the_import_table() -> None:
    assert not upward(imports()), "\n".join(upward(imports()))


def test_what_single_modules_may_import() -> None:
    assert not forbidden(imports()), "\n".join(forbidden(imports()))


def test_no_import_goes_past_the_table() -> None:
    found = everywhere(dynamic(source, module) for module, source in SOURCES.items())
    assert not found, "\n".join(found)
    assert dynamic("import importlib\nimportlib.import_module('onnxfold.passes')", "onnxfold.model.save")
    assert dynamic("__import__('onnxruntime')", "onnxfold.model.save")


def test_no_cycle() -> None:
    assert not cycle(imports(), MODULES), "\n".join(cycle(imports(), MODULES))


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) == "folding"])
def test_no_onnx_behind_the_mathematics(module: str) -> None:
    assert not onnx_behind(module, imports(), MODULES), "\n".join(onnx_behind(module, imports(), MODULES))


def test_files_are_short() -> None:
    lines = {module: len(source.splitlines()) for module, source in SOURCES.items()}
    assert not {module: count for module, count in lines.items() if count > LONGEST_FILE}


def test_the_package_is_a_list_of_packages() -> None:
    names = [path.name for path in PACKAGE.iterdir() if not path.name.startswith("__") and path.name != "py.typed"]
    assert len(names) <= MOST_TOP_LEVEL, sorted(names)


def test_who_catches_everything() -> None:
    found = everywhere(broad(source, module) for module, source in SOURCES.items())
    assert not found, "\n".join(found)


def test_the_allow_list_is_not_longer_than_it_must_be() -> None:
    there = {place for module, source in SOURCES.items() for place, _ in catching(source, module)}
    assert set(BROAD) <= there, f"gone: {set(BROAD) - there}"


def test_no_options_of_the_command_line_elsewhere() -> None:
    found = everywhere(flags(source, module) for module, source in SOURCES.items())
    assert not found, "\n".join(found)


def test_functions_take_few_parameters() -> None:
    found = everywhere(
        too_many(source, module) for module, source in SOURCES.items() if module != "onnxfold.folding._core"
    )
    assert not found, "\n".join(found)


def test_frozen_types_hold_read_only_arrays() -> None:
    found = everywhere(writable(source, module, arrays()) for module, source in SOURCES.items())
    assert not found, "\n".join(found)


# the checks see what they are for -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "source", "offence"),
    [
        ("onnxfold.folding.merge", "from ..model import graph", "folding may not import model"),
        (
            "onnxfold.model.save",
            "def f():\n    from ..planning.memory import streamed",
            "model may not import planning",
        ),
        ("onnxfold.report.build", "from ..transform.emit import emit", "report may not import transform"),
        ("onnxfold.cli.fold", "import onnxfold.passes.fold", "cli may not import passes"),
        ("onnxfold.errors", "from .units import in_bytes", ""),
        ("onnxfold.planning.planner", "from ..passes import base", "planning may not import passes"),
    ],
)
def test_an_upward_import_is_caught(module: str, source: str, offence: str) -> None:
    found = upward(imports_of(source, module))
    assert (found and offence in found[0]) if offence else not found, found


@pytest.mark.parametrize(
    ("module", "source", "offence"),
    [
        (f"{RULES}.made_up", "from ...model.graph import Node", "line 1) imports onnxfold.model.graph.Node"),
        (f"{RULES}.made_up", "from .. import groups", "imports onnxfold.analysis.groups"),
        (f"{RULES}.made_up", "import math\nimport onnx.helper as h", "line 2) imports onnx.helper"),
        (f"{RULES}.made_up", "def f():\n    import onnxruntime", "line 2) imports onnxruntime"),
        ("onnxfold.transform.emit", "import onnx_graphsurgeon as gs", "only onnxfold.model.graph may"),
        ("onnxfold.folding.kmeans", "from . import _core", "only onnxfold.folding._native may"),
        ("onnxfold.runtime.session", "import onnxruntime.quantization", "ort_quantizer may"),
        (
            "onnxfold.passes.quantization.ort_quantizer",
            "import onnxruntime as ort",
            "only onnxfold.runtime.session may",
        ),
    ],
)
def test_a_forbidden_import_is_caught(module: str, source: str, offence: str) -> None:
    found = forbidden(imports_of(source, module))
    assert found and offence in found[0], found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (f"{RULES}.made_up", "import math\nimport numpy as np\nfrom .facts import Tie\nfrom .table import Rule"),
        ("onnxfold.planning.allocation", "import onnxfold_extra\nfrom ..errors import PlanError"),
        ("onnxfold.runtime.session", "import onnxruntime as ort"),
    ],
)
def test_an_allowed_import_is_not(module: str, source: str) -> None:
    imports = imports_of(source, module)
    assert forbidden(imports) == [] and upward(imports) == []


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
    sources = {"onnxfold.folding.a": "from ..b import x", "onnxfold.b": "import onnx"}
    imports = [one for module, source in sources.items() for one in imports_of(source, module)]
    assert onnx_behind("onnxfold.folding.a", imports, sources) == ["onnxfold.b (line 1) imports onnx"]


@pytest.mark.parametrize(
    "kind", ["Exception", "BaseException", "(OSError, Exception)", "", "builtins.Exception", "(OSError, (Exception,))"]
)
def test_a_planted_except_is_caught(kind: str) -> None:
    source = f"class A:\n    def f(self):\n        try:\n            pass\n        except {kind}:\n            raise"
    assert "onnxfold.planning.search.A.f (line 5)" in broad(source, "onnxfold.planning.search")[0]
    assert broad(source.replace(f"except {kind}:", "except ExecutionError:"), "onnxfold.planning.search") == []
    other = "import contextlib\nALL = (Exception,)\ndef f():\n    with contextlib.suppress({}):\n        pass"
    for name in ("Exception", "OSError, BaseException", "ALL"):
        assert broad(other.format(name), "onnxfold.planning.search")
    assert not broad(other.format("OSError"), "onnxfold.planning.search")
    allowed = "def _run():\n    try:\n        pass\n    except Exception:\n        raise"
    assert broad(allowed, "onnxfold.cli.main") == []
    assert broad(allowed + "\n    try:\n        pass\n    except Exception:\n        raise", "onnxfold.cli.main")


def test_a_planted_option_is_caught() -> None:
    source = 'def f(x):\n    """--ratio is fine here."""\n    raise ValueError(f"--max-error must be {x}")'
    assert "line 3" in flags(source, "onnxfold.planning.search")[0]
    for said in ("give --ratio", "(--ratio)", "give:--ratio", "[--ratio]", "--ratio"):
        assert flags(f"x = {said!r}", "onnxfold.passes.fold"), said
    assert flags(source, "onnxfold.cli.fold") == [] and flags('x = "a -- b"', "onnxfold.passes.fold") == []


def test_a_planted_long_signature_is_caught() -> None:
    source = "class A:\n    def f(self, a, b, c, d, *, e, f, g, h=1): ..."
    assert too_many(source, "onnxfold.x") == ["onnxfold.x.A.f takes 8 parameters"]
    assert too_many(source.replace(", h=1", ""), "onnxfold.x") == []
    assert too_many(source.replace("h=1", "**h"), "onnxfold.x") and too_many("async " + source[13:], "onnxfold.x")


def test_a_planted_writable_array_is_caught() -> None:
    held = "@dataclass(frozen=True)\nclass A:\n    x: {}\n"
    for kind in ("NDArray[np.float64]", "Mapping[str, Ints]", "tuple[Ints, ...] | None"):
        assert writable(held.format(kind), "onnxfold.x", ["Ints"]), kind
    made = held.format("Ints") + "    def __post_init__(self):\n        read_only(self)\n"
    assert writable(made, "onnxfold.x", ["Ints"]) == [] and writable(held.format("int"), "onnxfold.x", ["Ints"]) == []


def test_packages_count_their_own_name() -> None:
    """``from . import conv`` means something else in ``rules/__init__.py`` than in ``rules/conv.py``'s neighbors."""
    assert imports_of("from . import conv", RULES, True)[0].target == f"{RULES}.conv"
    assert imports_of("from . import conv", f"{RULES}.norm")[0].target == f"{RULES}.conv"
    assert imports_of("from ..groups import X", f"{RULES}.norm")[0].target == "onnxfold.analysis.groups.X"
