"""What was asked for, checked: budgets, choices by name, patterns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from ..errors import RequestError
from .budget import Aim, Budget
from .choices import Clusterer, Effort, Method, Recovery


@dataclass(frozen=True)
class Training:
    """What `--refine` asks for; `steps`: None for those that the effort allows."""

    steps: int | None
    effort: Effort
    seed: int


C = TypeVar("C", bound=Enum)
DEFAULT_MAX_ERROR = 0.1  # relative L2 of the outputs, on samples or probe inputs, that the default budget allows


Patterns = tuple[list[re.Pattern[str]], list[re.Pattern[str]]]


@dataclass(frozen=True)
class Manner:
    """How channels are chosen and merged, and which of them may be; all of it checked by `of`."""

    method: Method
    recovery: Recovery
    clusterer: Clusterer
    effort: Effort
    seed: int
    threads: int
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    patterns: Patterns

    @classmethod
    def of(
        cls,
        method: Method | str,
        recovery: Recovery | str,
        clusterer: Clusterer | str,
        effort: Effort | str,
        seed: int,
        threads: int,
        include: Sequence[str],
        exclude: Sequence[str],
    ) -> Manner:
        """From what a user may give. Raises RequestError."""
        check_seed(seed, threads)
        include, exclude = ([given] if isinstance(given, str) else given for given in (include, exclude))
        return cls(
            one_of(Method, method), one_of(Recovery, recovery), one_of(Clusterer, clusterer), one_of(Effort, effort),
            seed, threads, tuple(include), tuple(exclude), patterns(include, exclude),
        )  # fmt: skip


def make_budget(
    ratio: float | None,
    target_params: float | None,
    target_macs: float | None,
    max_error: float | None,
    min_agreement: float | None,
    target_size: float | None,
    target_latency: float | None,
    round_to: int,
    group_ratios: Mapping[str, float] | None = None,
) -> Budget:
    """The one budget that was given, or the default. Raises RequestError for two."""
    special = tuple((_pattern("--group-ratio", text), share) for text, share in (group_ratios or {}).items())
    asked = {
        Aim.RATIO: ratio, Aim.PARAMS: target_params, Aim.MACS: target_macs, Aim.SIZE: target_size,
        Aim.LATENCY: target_latency, Aim.QUALITY: max_error, Aim.AGREEMENT: min_agreement,
    }  # fmt: skip
    given = [(aim, value) for aim, value in asked.items() if value is not None]
    if len(given) > 1:
        raise RequestError(f"give one of {', '.join(f'--{aim.value}' for aim in asked)}, not several")
    default = (Aim.RATIO, 0.0) if special else (Aim.QUALITY, DEFAULT_MAX_ERROR)
    aim, value = given[0] if given else default
    return Budget(aim, value, round_to, special)


def one_of(choices: type[C], value: C | str) -> C:
    """The member of `choices` with that value. Raises RequestError for one that there is not."""
    try:
        return choices(value)
    except ValueError:
        known = ", ".join(str(c.value) for c in choices)
        raise RequestError(f"unknown {choices.__name__.lower()} '{value}': choose from {known}") from None


def check_seed(seed: int, threads: int = 0) -> None:
    """Raise RequestError for a seed or a number of threads out of range."""
    if not 0 <= seed < 2**32:
        raise RequestError(f"--seed must be between 0 and {2**32 - 1}, not {seed}")
    if not 0 <= threads <= 1024:
        raise RequestError(f"--threads must be between 0 (all) and 1024, not {threads}")


def patterns(include: Sequence[str], exclude: Sequence[str]) -> Patterns:
    """Both lists compiled. Raises RequestError for what is no regular expression."""
    compiled: list[list[re.Pattern[str]]] = []
    for option, given in (("--include", include), ("--exclude", exclude)):
        compiled.append([_pattern(option, text) for text in ([given] if isinstance(given, str) else given)])
    return compiled[0], compiled[1]


def _pattern(option: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise RequestError(f"{option} '{text}' is not a regular expression: {error}") from error


def check_jobs(jobs: int) -> None:
    """Raise RequestError for a number of jobs out of range."""
    if not 1 <= jobs <= 1024:
        raise RequestError(f"--jobs must be between 1 and 1024, not {jobs}")
