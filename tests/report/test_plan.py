"""Plans as people see them: a line, a table, a notebook's table, a chart; edited by name; kept in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import write

import onnxfold
from onnxfold import Plan, PlannedGroup, RequestError, WidthPlan
from onnxfold.report.plans.keep import UnknownGroupError
from onnxfold.report.plans.plan import Remaining

HOSTILE = "<b>\x1b[31m'\u202e"
GROUPS = {
    "stem": PlannedGroup(32, 1, 16, ("stem", "join")),
    HOSTILE: PlannedGroup(12, 4, 12, ("query", "join")),
    "head": PlannedGroup(64, 1, 40, ("fc",)),
}


def plan(**more: Any) -> Plan:
    keep = {name: group.planned or 0 for name, group in GROUPS.items()}
    return Plan(WidthPlan(keep, GROUPS, {"target_macs": 0.7}, "net.onnx", "ab"), **more)


def test_a_line() -> None:
    made = plan(price=lambda keep: Remaining(0.65, 0.7 if "stem" in keep else None))
    assert repr(made) == (
        "<Plan of net.onnx: 2 of 3 groups shrink, 68 of 108 channels stay, 65 % of the parameters, 70 % of the MACs, "
        "found for Macs(0.7)>"
    )
    made.keep["stem"] = 32
    assert "1 of 3 groups shrink" in repr(made) and repr(made).endswith("found for Macs(0.7), 1 edited>")
    assert "MACs, " not in repr(made), "what is not counted is not told"
    assert repr(Plan(WidthPlan({"a": 3}))) == "<Plan of : 1 of 1 groups shrink>"


def test_a_table() -> None:
    made = plan()
    made.keep["fc"] = 33
    text = str(made)
    assert "stem" in text and "32 → 16" in text and "64 → 33" in text and "4 equal blocks" in text
    assert "edited, was 40" in text and "\x1b" not in text and all(len(line) <= 100 for line in text.splitlines())


def test_a_notebook_and_a_data_frame() -> None:
    tags = list[str]()

    class Seen(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            tags.append(tag)

    Seen().feed(plan()._repr_html_())
    assert set(tags) == {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"} and tags.count("tr") == 4
    pytest.importorskip("pandas")
    frame = plan().to_pandas()
    assert list(frame["after"]) == [16, 12, 40] and list(frame["before"]) == [32, 12, 64]
    pytest.importorskip("altair")
    assert "stem" in json.dumps(plan().plot().to_dict())


def test_widths_are_set_by_name() -> None:
    made = plan()
    made.keep["stem"], made.keep["query"] = 20, 8
    assert made.keep[HOSTILE] == made.keep["query"] == 8 and made.edited == {"stem": 20, HOSTILE: 8}
    assert "fc" in made.keep and "nothing" not in made.keep and made.keep.get("nothing") is None and len(made.keep) == 3
    made.keep.update({"fc": 8, "stem": 16})
    assert dict(made.keep) == {"stem": 16, HOSTILE: 8, "head": 8} and eval(repr(made.keep)) == dict(made.keep)
    other = made.copy()
    made.reset()
    assert made.edited == {} and made == plan() and other.edited == {HOSTILE: 8, "head": 8}


@pytest.mark.parametrize(
    ("name", "keep", "said"),
    [
        ("stm", 8, "`plan.keep` names 'stm', .* did you mean 'stem'"),
        ("join", 8, "a layer that makes several groups"),
        ("stem", 33, "`plan.keep` cannot keep 33 of the 32 channels of 'stem': give a number from 2 to 32"),
        ("query", 6, "a multiple of 4 from 8 to 12"),
        ("stem", 8.5, "a whole number of channels of 'stem', not 8.5"),
        ("stem", "8", "a whole number"),
    ],
)
def test_wrong_names_and_widths_change_nothing(name: str, keep: Any, said: str) -> None:
    made = plan()
    with pytest.raises(RequestError, match=said):
        made.keep[name] = keep
    with pytest.raises(RequestError, match=said):
        made.keep.update({"fc": 8, name: keep})
    assert made == plan()


def test_an_unknown_name_is_a_key_error_too() -> None:
    with pytest.raises(KeyError) as caught:
        plan().keep["stm"]
    assert isinstance(caught.value, UnknownGroupError) and str(caught.value).startswith("`plan.keep` names 'stm'")


@pytest.mark.parametrize("name", [[1], 3, None, ("stem",), {"stem": 1}])
def test_what_is_no_name_is_a_key_error_too(name: Any) -> None:
    with pytest.raises(UnknownGroupError, match=r"`plan\.keep` must have names for keys, not "):
        plan().keep[name]
    assert name not in plan().keep


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": np.array([1, 2])}, 'lacks "format": "onnxfold plan"'),
        ({"budget": {"target_macs": 7}}, "'budget': `target_macs` must be a number above 0 and at most 1, not 7"),
        ({"budget": {"target_mac": 0.7}}, "'budget': .*did you mean"),
        ({"budget": {"ratio": 0.5, "target_macs": 0.5}}, "'budget': pass one of"),
        ({"budget": {"target_macs": np.ones(2)}}, "'budget': `target_macs` must be a number"),
    ],
)
def test_what_a_plan_is_said_to_be_for_is_checked(change: dict[str, Any], said: str) -> None:
    """Before it is shown: a plan that can be read can be printed."""
    assert repr(Plan.from_dict(plan().to_dict()))
    with pytest.raises(RequestError, match=said):
        Plan.from_dict({**plan().to_dict(), **change})


def test_to_a_file_and_back(tmp_path: Path) -> None:
    made, path = plan(), tmp_path / "p.json"
    made.keep["stem"] = 24
    made.save(path)
    text = path.read_text(encoding="utf-8")
    assert Plan.load(path) == made == Plan.from_json(text) == Plan.from_json(made.to_json())
    assert Plan.from_dict(made.to_dict()) == made and Plan.load(path).edited == {"stem": 24}
    assert json.loads(text)["keep"]["stem"] == 24 and len(text.splitlines()) == 20, "a line for every group"
    path.write_text('{"format": "onnxfold plan", "version": 1, "keep": {"a": 5}}')
    by_hand = Plan.load(path)
    by_hand.keep["b"] = 7
    assert dict(by_hand.keep) == {"a": 5, "b": 7}
    with pytest.raises(RequestError, match="whole number"):
        by_hand.keep["b"] = 0
    with pytest.raises(RequestError, match=r"comes from a file: call onnxfold.fold\(model, output, plan=plan\)"):
        by_hand.apply()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('"stem": 16,', '"stem": 16'), "is not valid JSON: line 12, expecting ',' delimiter"),
        (lambda text: text.replace('"stem": 16,', '"stem": 16, "stem": 24,'), "'stem' is there twice"),
        (lambda text: text.replace('"stem": 16,', '"stm": 16,'), "names 'stm', .* did you mean 'stem'"),
        (lambda text: text.replace('"stem": 16,', '"stem": "16",'), "a whole number of channels of 'stem', not '16'"),
        (lambda text: text.replace('"stem": 16,', '"stem": 33,'), "cannot keep 33 of the 32 channels"),
        (lambda text: text.replace('"keep"', '"kept"'), "has no 'kept': did you mean 'keep'"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "has version 2 of the format"),
        (lambda text: text.replace('"version": 1', '"version": true'), "has version True of the format"),
        (lambda text: text.replace('"stem": 16,', f'"stem": {"9" * 5000},'), "a number of 5000 digits"),
        (
            lambda text: text.replace('"stem": 16,', f'"stem": {"9" * 300},'),
            "channels of 'stem', not 99",
        ),
        (lambda text: text.replace('["fc"]', "null"), "group 'head': 'layers' must be a list of names"),
        (lambda text: text.replace("onnxfold plan", "report"), 'lacks "format": "onnxfold plan"'),
        (lambda text: "[1, 2]", "is no plan of onnxfold"),
        (lambda text: "", "is not valid JSON: line 1"),
        (lambda text: "[" * 100000, "nested too deep|is not valid JSON"),
    ],
)
def test_mistakes_in_a_file_are_said_in_one_line(change: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    plan().save(path)
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(RequestError, match=said) as caught:
        Plan.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_all_widths_at_once() -> None:
    """As where a plan is given as a mapping: groups that are not named stay whole."""
    made = plan()
    made.keep = {"fc": 8}
    assert dict(made.keep) == {"stem": 32, HOSTILE: 12, "head": 8}
    for wrong, said in ((3, "`plan.keep` must be a mapping, not 3"), ({"fc": 65}, "cannot keep 65"),
                        ({3: 8}, "must have names for keys, not 3"), (None, "must be a mapping")):  # fmt: skip
        with pytest.raises(RequestError, match=said):
            made.keep = wrong
        assert made.keep["fc"] == 8
    with pytest.raises(RequestError, match=r"`plan.keep` must have names for keys, not 3"):
        Plan(WidthPlan({"a": 5})).keep[3] = 4  # type: ignore[index]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda made: made.save(3), "`path` must be a path, not 3"),
        (lambda made: made.save(None), "`path` must be a path, not None"),
        (lambda made: made.save(b"p.json"), "`path` must be a path, not b'p.json'"),
        (lambda made: made.save("a\0b"), "`path` must be a path"),
        (lambda made: Plan.load(3.5), "`path` must be a path, not 3.5"),
        (lambda made: made.apply(3), "`output` must be a path, not 3"),
        (lambda made: made.keep.update([1]), "`plan.keep` must be a mapping"),
        (lambda made: Plan.from_dict(3), "`given` must be a mapping, not 3"),
        (lambda made: Plan.from_dict({**made.to_dict(), "keep": {"stem": object()}}), "a whole number of channels"),
        (lambda made: Plan.from_json(3), "it is no text, but int"),
        (lambda made: made.keep.__setitem__("stem", 10**5000), "a number of more than 4300 digits"),
    ],
)
def test_values_of_another_type(call: Callable[[Plan], object], said: str) -> None:
    made = Plan(WidthPlan({"stem": 16}, {"stem": GROUPS["stem"]}), applied=lambda widths, output: pytest.fail("ran"))
    with pytest.raises(RequestError, match=said) as caught:
        call(made)
    assert "\n" not in str(caught.value)


def test_a_plan_is_saved_over_nothing_that_the_fold_read_or_wrote(tmp_path: Path) -> None:
    """The model by its path, and, of a plan that was read, by its hash; the result; the weights beside the model."""
    model, out, kept = (tmp_path / name for name in ("in.onnx", "out.onnx", "p.json"))
    write(model)
    result = onnxfold.fold(model, out, ratio=0.5, effort="fast", latency=False)
    made = result.plan
    assert made is not None
    with pytest.raises(RequestError, match="`path` must be a path, not 3"):
        result.save(3)  # type: ignore[arg-type]
    made.save(kept)
    made.save(kept)
    before = model.read_bytes(), out.read_bytes()
    (tmp_path / "link.json").symlink_to(model)
    tries = [(made, model), (made, out), (made, tmp_path / "link.json"), (Plan.load(kept), model)]
    tries.append((onnxfold.analyze(model, effort="fast").plan(onnxfold.Ratio(0.5)), model))
    for one, path in tries:
        with pytest.raises(RequestError, match=r"the plan would overwrite the model .*: choose another file"):
            one.save(path)
    assert (model.read_bytes(), out.read_bytes()) == before


def test_a_plan_is_not_saved_over_the_weights_of_the_result(tmp_path: Path) -> None:
    result = onnxfold.fold(
        write(tmp_path / "in.onnx"), tmp_path / "out.onnx", ratio=0.5, effort="fast", latency=False, external_data=True
    )
    (data,) = (path for path in tmp_path.iterdir() if path.name not in ("in.onnx", "out.onnx"))
    assert result.plan is not None
    with pytest.raises(RequestError, match="the plan would overwrite"):
        result.plan.save(data)
    onnxfold.inspect(tmp_path / "out.onnx")


def test_half_characters_are_refused_where_they_are_read() -> None:
    text = plan().to_json()
    with pytest.raises(RequestError, match=r"the plan has half a character in a text \('\\ud800'\): fix it"):
        Plan.from_json(text.replace('"stem"', '"stem\\ud800"', 1))


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    for path, said in ((tmp_path / "no.json", "cannot read the plan"), (tmp_path, "cannot read the plan"),
                       (tmp_path / "b.json", "not UTF-8 text")):  # fmt: skip
        with pytest.raises(RequestError, match=said):
            Plan.load(path)
    with pytest.raises(RequestError, match="cannot write the plan"):
        plan().save(tmp_path / "nowhere" / "p.json")
