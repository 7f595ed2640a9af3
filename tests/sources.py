"""What the sources of onnxfold say: imports, functions, what is caught, which names stand for arrays."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "onnxfold"
OWN_PATH = ("onnxfold.folding._native", "onnxfold.folding")  # takes the package's list of folders and nothing else


def modules() -> dict[str, tuple[Path, bool]]:
    """Module name -> file, and whether it is a package."""
    files = sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")])
    out = {}
    for file in files:
        parts = ["onnxfold", *file.relative_to(PACKAGE).with_suffix("").parts]
        package = parts[-1] == "__init__"
        out[".".join(parts[:-1] if package else parts)] = (file, package)
    return out


# imports --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    """One imported name: ``from .facts import Tie`` in onnxfold/analysis/rules/norm.py has the target
    onnxfold.analysis.rules.facts.Tie."""

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


# functions, and what they catch ---------------------------------------------------------------------------------------


def functions(tree: ast.AST, module: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function with its full name, methods and inner ones too."""
    waiting: list[tuple[str, ast.AST]] = [(module, tree)]
    while waiting:
        name, node = waiting.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}"
                waiting.append((inner, child))
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield inner, child
            else:
                waiting.append((name, child))


EVERYTHING = ("Exception", "BaseException")


def catching(source: str, module: str) -> list[tuple[str, int]]:
    """Where everything is caught: the function and the line of ``except Exception`` (or BaseException, or bare, alone
    or in a tuple, also as ``builtins.Exception`` or by another name), and of ``suppress(Exception)``."""
    tree, found = ast.parse(source), []
    owner = dict[int, str]()
    for name, function in sorted(functions(tree, module), key=lambda pair: pair[0].count(".")):  # the innermost last
        owner.update(dict.fromkeys(map(id, ast.walk(function)), name))
    names = set(EVERYTHING)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and names_in(node.value) & names and not isinstance(node.value, ast.Call):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree):
        caught: ast.AST | None = None
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                found.append((owner.get(id(node), module), node.lineno))
            caught = node.type
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            caught = ast.Tuple(node.args)
        if caught is not None and names_in(caught) & names:
            found.append((owner.get(id(node), module), node.lineno))
    return found


def names_in(node: ast.AST) -> set[str]:
    """The names in an expression, and the last parts of dotted ones."""
    inside = list(ast.walk(node))
    return {n.id for n in inside if isinstance(n, ast.Name)} | {n.attr for n in inside if isinstance(n, ast.Attribute)}


# arrays ---------------------------------------------------------------------------------------------------------------


def aliases(trees: Iterable[ast.Module]) -> set[str]:
    """Names that stand for arrays: ``Floats = NDArray[np.float64]``, ``Feeds = Mapping[str, NDArray[Any]]``."""
    return {
        target.id
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign) and "NDArray[" in (value := ast.unparse(node.value)) and "Callable" not in value
        for target in node.targets
        if isinstance(target, ast.Name)
    }
