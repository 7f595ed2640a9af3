"""Random whole graphs, and what must hold for every one of them (tests/drawn): how many, of what, and what failed.

    python benchmarks/random_graphs.py [--count 2000] [--seed 0]
    python benchmarks/random_graphs.py --replay "17 image 160 | split 0 0 1"

Graph number i is drawn from seed + i alone. Failures are made smaller and printed as lines for --replay, and for
tests/drawn/corpus.txt, which the tests replay always. Ends with 1 if there were any.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from drawn import NAMES, Outcome, Recipe, draw, judge, shrink

EVERY = 100  # graphs between two lines that say how far it is


class Summary:
    """What was seen of all graphs."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.operators: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.failures: list[str] = []
        self.begin = time.perf_counter()

    def add(self, outcome: Outcome) -> None:
        self.operators.update(outcome.operators)
        self.counts.update(
            graphs=1, groups=len(outcome.groups), channels=sum(outcome.groups), without=not outcome.groups,
            controls=outcome.controls, folds=outcome.folds, refusals=outcome.refusals,
        )  # fmt: skip
        if outcome.skipped:
            self.skipped[outcome.skipped] += 1

    def __str__(self) -> str:
        c, seconds = self.counts, time.perf_counter() - self.begin
        skipped = ", ".join(f"{count} {why}" for why, count in self.skipped.items())
        return "\n".join(
            (
                f"{c['graphs']} graphs in {seconds:.0f} s ({c['graphs'] / seconds:.1f} a second), {memory()}",
                f"{c['groups']} groups of {c['channels']} channels; {c['without']} graphs without any",
                f"{c['controls']} negative controls; oracles that could not judge: {skipped or 'none'}",
                f"{c['folds']} folds, {c['refusals']} refusals",
                f"{len(self.operators)} operators: " + ", ".join(f"{o} {n}" for o, n in self.operators.most_common()),
                f"{len(self.failures)} failures",
                *self.failures,
            )
        )


def memory() -> str:
    """The most that this process has taken."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most"


def failure(what: str, recipe: Recipe) -> str:
    """A failure with the smallest recipe that fails in the same property."""
    name = what.partition(":")[0]
    smaller = shrink(recipe, lambda r: any(one.startswith(f"{name}:") for one in problems(r)))
    return f"{what}\n    {smaller}"


def problems(recipe: Recipe) -> list[str]:
    """What does not hold for a graph; a generator that fails is a finding too."""
    try:
        return judge(recipe).problems
    except Exception as error:  # of the generator, the checker or onnxruntime
        return [f"generator: {type(error).__name__}: {error}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", metavar="LINE", help="one recipe instead")
    asked = parser.parse_args()
    warnings.simplefilter("error")
    if asked.replay:
        found = problems(Recipe.parse(asked.replay))
        print("\n".join(found) or "nothing failed")
        return 1 if found else 0
    summary = Summary()
    for number in range(asked.seed, asked.seed + asked.count):
        recipe = draw(NAMES, number)
        try:
            outcome = judge(recipe)
            summary.add(outcome)
            found = outcome.problems
        except Exception:  # said again, and with its reason, by `problems`
            found = problems(recipe)
        for what in found:
            summary.failures.append(f"seed {number}: {failure(what, recipe)}")
            print(summary.failures[-1], flush=True)
        if (number + 1 - asked.seed) % EVERY == 0:
            print(f"{number + 1 - asked.seed} graphs, {len(summary.failures)} failures, {memory()}", flush=True)
    print(summary)
    return 1 if summary.failures else 0


if __name__ == "__main__":
    sys.exit(main())
