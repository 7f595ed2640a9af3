"""The table of rules: (domain, operator, since-version) -> function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ...errors import RuleError
from .facts import Fact
from .node_view import NodeView

RuleFunction = Callable[[NodeView], Iterator[Fact]]


@dataclass(frozen=True)
class Rule:
    """One function for several operators of one domain, valid from opset `since` on."""

    function: RuleFunction
    ops: tuple[str, ...]
    since: int = 1
    domain: str = ""


class RuleTable:
    """Looks up the rule for a node. The same (domain, op, since) twice is an error."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules: dict[tuple[str, str], dict[int, RuleFunction]] = {}
        for rule in rules:
            for op in rule.ops:
                versions = self._rules.setdefault((rule.domain, op), {})
                if rule.since in versions:
                    raise RuleError(f"two rules for {rule.domain or 'ai.onnx'}::{op} since {rule.since}")
                versions[rule.since] = rule.function

    def replacing(self, rules: Iterable[Rule]) -> RuleTable:
        """Another table, in which `rules` stand in place of those for the same (domain, op, since)."""
        other = RuleTable(rules)
        other._rules = {
            key: {**self._rules.get(key, {}), **other._rules.get(key, {})} for key in {**self._rules, **other._rules}
        }
        return other

    def find(self, domain: str, op: str, version: int) -> RuleFunction | None:
        """The rule with the highest `since` not above `version`, or None."""
        versions = self._rules.get((domain, op), {})
        since = max((s for s in versions if s <= version), default=None)
        return None if since is None else versions[since]

    def ops(self) -> list[tuple[str, str]]:
        """All (domain, op) pairs that have a rule, sorted."""
        return sorted(self._rules)
