"""Random whole graphs hold what every graph must (drawn/): those that once failed, and as many new ones as there is
time for. `benchmarks/random_graphs.py` does the same on thousands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import drawn
import pytest
from drawn import FLAGS, NAMES, OPSETS, SOURCES, STEPS, Recipe, Step, draw, judge, shrink
from drawn.recipe import HIGHEST, NUMBERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxfold.analysis.rules import FAMILIES, conv, layout
from onnxfold.analysis.rules.facts import Blocks, Count, Fact, Tie
from onnxfold.analysis.rules.node_view import NodeView
from onnxfold.analysis.rules.pointwise import same_axes
from onnxfold.analysis.rules.table import Rule, RuleFunction, RuleTable

CORPUS = Path(drawn.__file__).parent / "corpus.txt"
GRAPHS, MORE = 40, 120
MOST_SKIPPED = 0.1  # of the graphs: more, and the generator makes graphs that say nothing


def corpus() -> list[str]:
    lines = CORPUS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


numbers = st.lists(st.just(0) | st.integers(0, HIGHEST), max_size=NUMBERS).map(tuple)
steps = st.builds(Step, st.sampled_from(NAMES), numbers)
recipes = st.builds(
    Recipe,
    opset=st.sampled_from(OPSETS), source=st.sampled_from(SOURCES), seed=st.integers(0, 999),
    flags=st.lists(st.sampled_from(FLAGS), unique=True, max_size=2).map(tuple),
    steps=st.lists(steps, min_size=3, max_size=12).map(tuple),
)  # fmt: skip
seen: Counter[str] = Counter()


def holds(recipe: Recipe) -> None:
    outcome = judge(recipe)
    assert not outcome.problems, f"{outcome.problems}; to be replayed always: add this line to {CORPUS}\n{recipe}"
    seen.update(graphs=1, skipped=bool(outcome.skipped), groups=len(outcome.groups), controls=outcome.controls)


@pytest.mark.parametrize("line", corpus())
def test_graphs_that_once_failed(line: str) -> None:
    holds(Recipe.parse(line))


ALWAYS_THE_SAME = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@settings(ALWAYS_THE_SAME, max_examples=GRAPHS)
@given(recipes)
def test_random_graphs(recipe: Recipe) -> None:
    holds(recipe)


@pytest.mark.full
@settings(ALWAYS_THE_SAME, max_examples=MORE)
@given(recipes)
def test_more_random_graphs(recipe: Recipe) -> None:
    holds(recipe)


def test_the_random_graphs_said_something() -> None:
    """An oracle that skips, or never sees a group, passes everything."""
    if seen["graphs"] < GRAPHS:  # they were drawn in another process, or not at all
        test_random_graphs()
    assert seen["skipped"] <= MOST_SKIPPED * seen["graphs"]
    assert seen["groups"] >= seen["graphs"] / 2 and seen["controls"] >= seen["groups"] / 2


# they see what they are for -------------------------------------------------------------------------------------------


def without(kind: type, rule: RuleFunction) -> RuleFunction:
    """The rule, but for its facts of one kind."""
    return lambda n: iter([fact for fact in rule(n) if not isinstance(fact, kind)])


def passing(n: NodeView) -> Iterator[Fact]:
    """What is wrong of every operator that mixes."""
    return same_axes(n.x(), n.y())


def turned(n: NodeView) -> Iterator[Fact]:
    """Parts where there are runs, and runs where there are parts."""
    yield Tie(n.x().axis(0), n.y().axis(0))
    parts = n.attr("blocksize") ** 2
    crd = n.attr("mode", "DCR") == "CRD"
    yield Tie(n.x().axis(1), n.y().axis(1).tile(parts) if crd else n.y().axis(1).repeat(parts))


WRONG: dict[str, tuple[str, RuleFunction, str]] = {
    "a length that stays": ("Slice", without(Count, layout.cut), "17 image 8 | cut 0 0 1 | conv"),
    "a group that stays": ("Conv", without(Count, conv.conv), "17 image 8 | depthwise_conv | conv"),
    "unequal blocks": ("Conv", without(Blocks, conv.conv), "17 image 8 | grouped_conv 0 0 0 | conv"),
    "another order": ("DepthToSpace", turned, "17 image 8 | conv 0 3 | depth_to_space | conv"),
    "a sum of channels": ("Softmax", passing, "17 image 8 | softmax 0 0 0 | conv"),
    "a sum over positions": ("LayerNormalization", passing, "17 sequence 8 | matmul | layer_norm | matmul"),
    "an order of channels": ("CumSum", passing, "17 sequence 8 | matmul | running_sum 0 1 | matmul"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_rule_is_seen(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, rule, line = WRONG[what]
    assert not judge(Recipe.parse(line)).problems
    right = [Rule(e.function, tuple(o for o in e.ops if o != op), e.since, e.domain) for f in FAMILIES for e in f.RULES]
    monkeypatch.setattr("onnxfold.analysis.analyze.default_rules", lambda: RuleTable([*right, Rule(rule, (op,))]))
    assert judge(Recipe.parse(line)).problems


# the generator ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_recipe_is_a_line_of_text(seed: int) -> None:
    recipe = draw(NAMES, seed)
    assert Recipe.parse(str(recipe)) == recipe


def test_every_step_is_in_some_graph() -> None:
    from drawn import build

    done: set[str] = set()
    for seed in range(1400, 2400):
        done.update(build(draw(NAMES, seed))[1])
        if done == set(STEPS):
            return
    raise AssertionError(f"never fit: {set(STEPS) - done}")


def test_shrinking() -> None:
    """What does not matter goes, what matters stays."""
    recipe = draw(NAMES, 1)
    assert len(recipe.steps) > 3
    wanted = recipe.steps[2].name
    found = shrink(recipe, lambda r: any(step.name == wanted for step in r.steps))
    assert found.steps == (Step(wanted),) and not found.flags
