"""Widths that are given: by names of groups or layers, checked against what groups are, frozen, to dicts and back."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from onnxfold import Budget, FoldOptions, PlannedGroup, RequestError, WidthPlan

GROUPS = {
    "stem": PlannedGroup(32, 1, 16, ("stem", "stem2")),
    "heads": PlannedGroup(12, 4, 8, ("query", "both")),
    "tiny": PlannedGroup(2, 1, None, ("both",)),
}


def plan(keep: Any, **more: Any) -> WidthPlan:
    return WidthPlan(keep, GROUPS, {"target_macs": 0.7}, "net.onnx", "ab", **more)


def test_names_become_groups_and_the_rest_stays_whole() -> None:
    found = plan({"query": np.int64(8), "stem2": 17})
    assert found.keep == {"stem": 17, "heads": 8, "tiny": 2} and [type(k) for k in found.keep.values()] == [int] * 3
    assert found.edited == {"stem": 17} and found.shrinks == {"stem": 17, "heads": 8}
    assert WidthPlan({"anything": 5}).keep == {"anything": 5}, "no groups: the model decides"


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ({"stm": 8}, "`plan` names 'stm', .* did you mean 'stem'?"),
        ({"zzz": 8}, "names 'zzz', .*: `inspect` lists all groups"),
        ({"both": 2}, "'both', a layer that makes several groups: name one of 'heads', 'tiny'"),
        ({"stem": 16, "stem2": 8}, "the group 'stem' twice, as 'stem' and as 'stem2'"),
        ({"stem": 33}, "cannot keep 33 of the 32 channels of 'stem': give a number from 2 to 32"),
        ({"stem": 1}, "cannot keep 1 of the 32 .* give a number from 2 to 32"),
        ({"heads": 10}, "cannot keep 10 of the 12 .* a multiple of 4 from 8 to 12 .*4 equal blocks"),
        ({"heads": 4}, "cannot keep 4 of the 12"),
        ({"tiny": 1}, "cannot keep 1 of the 2 channels of 'tiny': it must keep all 2"),
        ({"stem": "16"}, "a whole number of channels of 'stem', not '16'"),
        ({"stem": True}, "a whole number of channels of 'stem', not True"),
        ({"stem": 0}, "a whole number of channels of 'stem', not 0"),
        ({"stem": 8.0}, "a whole number of channels of 'stem', not 8.0"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(keep: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        plan(keep)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_a_file_is_named() -> None:
    with pytest.raises(RequestError, match=r"^the plan 'p.json' cannot keep 33"):
        plan({"stem": 33}, file="p.json")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kep": {}}, "`plan` has no 'kep': did you mean 'keep'?"),
        ({"groups": {}}, "`plan` lacks 'keep'"),
        ({"keep": [1]}, "'keep' must be an object"),
        ({"keep": None}, "'keep' must be an object"),
        ({"keep": {}, "groups": {"a": 3}}, "group 'a' must have 'channels'"),
        ({"keep": {}, "groups": {"a": {"channels": 8, "block": 2}}}, "group 'a' must have 'channels', and may have"),
        ({"keep": {}, "groups": {"a": {"channels": 8, "blocks": 3}}}, "group 'a': 'channels', 'blocks'"),
        ({"keep": {}, "groups": {"a": {"channels": "8"}}}, "group 'a': 'channels'"),
        ({"keep": {}, "groups": {"a": {"channels": 8, "layers": "a"}}}, "group 'a': 'layers' must be a list of names"),
        ({"keep": {}, "budget": 0.7}, "'budget' must be an object"),
        ({"keep": {}, "source_sha256": 3}, "'source_sha256' must be a text"),
    ],
)
def test_what_a_dict_lacks_is_said(given: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        WidthPlan.from_dict(given)


def test_to_a_dict_and_back() -> None:
    found = plan({"stem": 20})
    assert WidthPlan.from_dict(found.to_dict()) == found == pickle.loads(pickle.dumps(found))
    with pytest.raises(FrozenInstanceError):
        found.model = "other"  # type: ignore[misc]


def test_as_a_budget() -> None:
    """A plan is a budget among others; nothing else goes with it."""
    found = FoldOptions.of(plan={"conv": 8})
    assert found.budget == Budget.plan({"conv": 8}) == Budget.from_dict(found.budget.to_dict())
    assert FoldOptions.from_dict(found.to_dict()) == found and found.budget != Budget.plan({"conv": 9})
    for more in ({"ratio": 0.3}, {"max_error": 0.1}, {"target_size": 0.5}, {"group_ratios": {"a": 0.1}}):
        with pytest.raises(RequestError, match="`plan`"):
            FoldOptions.of(plan={"conv": 8}, **more)
    with pytest.raises(RequestError, match=r"read it with Plan.load"):
        FoldOptions.of(plan="p.json")
    with pytest.raises(RequestError, match="`plan`: 'budget': a budget has no `target_mac`: did you mean"):
        Budget.plan({"keep": {}, "budget": {"target_mac": 0.7}})
    with pytest.raises(RequestError, match="not a plan"):
        Budget.plan({"keep": {}, "budget": {"plan": {"conv": 8}}})


def test_what_the_metadata_say() -> None:
    """The budget that found these widths, for the model that it was; else the widths."""
    found = plan({"stem": 16, "heads": 8})
    assert found.edited == {} and plan({"stem": 16}).edited == {"heads": 12}
    assert Budget.plan(found).recorded("ab") == {"target_macs": 0.7}
    assert Budget.plan(found).recorded("cd") == Budget.plan(found).recorded(None) == {"plan": {"stem": 16, "heads": 8}}
    assert Budget.plan(plan({"heads": 8})).recorded("ab") == {"plan": {"heads": 8}}
