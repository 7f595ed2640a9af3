"""Every operator that has a rule is in a test model of its family."""

from __future__ import annotations

import importlib

import pytest
from helpers import Case, newest_opset
from onnx.defs import SchemaError, get_schema

from onnxfold.analysis.rules import FAMILIES, default_rules
from onnxfold.model.graph import plain_domains


def cases(family: object) -> list[Case]:
    name = family.__name__.rsplit(".", 1)[-1]  # type: ignore[attr-defined]
    module = importlib.import_module(f"test_{name}")
    more = [*getattr(module, "YOUNG", ()), *(fused for fused, _ in getattr(module, "ELSEWHERE", ()))]
    return [*module.CASES, *(case for case in more if case not in module.CASES)]


def is_too_new(op: str) -> bool:
    """Whether the installed onnx or onnxruntime does not know an operator yet."""
    try:
        return bool(get_schema(op).since_version > newest_opset())
    except SchemaError:
        return True


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__.rsplit(".", 1)[-1])
def test_every_op_of_a_family_is_in_one_of_its_models(family: object) -> None:
    used = {(n.domain, n.op_type) for case in cases(family) for n in plain_domains(case.model()).graph.node}
    words = {(rule.domain, op) for rule in family.RULES for op in rule.ops}  # type: ignore[attr-defined]
    missing = words - used
    too_new = {(d, op) for d, op in missing if not d and is_too_new(op)}
    assert missing == too_new, f"in no test model: {sorted(missing - too_new)}"


def test_the_families_are_the_default_rules() -> None:
    words = {(rule.domain, op) for family in FAMILIES for rule in family.RULES for op in rule.ops}
    assert sorted(words) == default_rules().ops()


def test_names_of_cases_are_unique() -> None:
    for family in FAMILIES:
        names = [case.name for case in cases(family)]
        assert len(set(names)) == len(names)
