"""Which layers share weights within limits, and which blocks are dropped; errors are measured where a limit needs
it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnx import ModelProto

from ...errors import NothingToFoldError, PlanError, RequestError
from ...model.model import Model
from ...options.budget import Limits
from ...progress import Progress
from .distances import Partition
from .fuse import Fused
from .residual_blocks import Block

PATIENCE = 3  # joins in a row that break the limit, until no more are tried
_ROOM = 1.15  # by how much a limit that is advised exceeds the error: the verdict is measured on other inputs
_TRIED = 6  # blocks nearest to the identity: the one of these whose loss changes the outputs least is dropped next


Make = Callable[[Partition], Fused]


def fuse_to(
    start: Partition,
    limits: Limits,
    count: int,
    make: Make,
    size: Callable[[Partition], float],
    error: Callable[[ModelProto], float],
    progress: Progress[Any],
) -> tuple[Partition, Fused]:
    """The nearest sets joined until a limit is met.

    Args:
        count: of the layers that could share weights with others or not.
        make: the fused model, repaired as far as that is wanted.
        size: the share of the file that would remain.
        error: of a version of the model.

    With an error limit every join is made, repaired and measured; one that breaks the limit is left out, and after
    `PATIENCE` such in a row no more are tried. Raises PlanError for what cannot be reached, NothingToFoldError where no
    join keeps the limit.
    """
    wanted = None if limits.share is None else max(1, round(limits.share * count))

    def enough(at: Partition) -> bool:
        if wanted is not None:
            return at.layers >= wanted
        return limits.target_size is not None and size(at) <= limits.target_size

    if limits.max_error is None:
        at = start
        while not enough(at):
            pair = at.next()
            if pair is None:
                raise PlanError(_beyond(limits, at, count, size))
            at = at.joined(*pair)
        return at, make(at)
    at, best, refused, least = start, None, 0, math.inf
    for _ in progress("fusing layers", list(range(count))):
        pair = at.next()
        if pair is None or refused >= PATIENCE or (best is not None and enough(at)):
            break
        tried = at.joined(*pair)
        made = make(tried)
        found = error(made.proto)
        least = min(least, found)
        if found <= limits.max_error:
            at, best, refused = tried, made, 0
        else:
            at, refused = at.parted(*pair), refused + 1
    if best is None:
        raise NothingToFoldError(
            f"no two layers can share a weight within `max_error={limits.max_error:g}`: {_at_least(least)}"
        )
    return at, best


def _at_least(error: float) -> str:
    """What the join that costs the least costs, and the limit that lets it through, in words."""
    wanted = math.ceil(100 * _ROOM * error) / 100 if error < 1 else math.inf
    if wanted > 1:
        return "the outputs would be lost with any two: leave the layers as they are, or fold channels"
    return (
        f"one weight for two of them costs an output error of {100 * error:.3g} %, which `max_error={wanted:g}` allows"
    )


def least_missed(
    found: Sequence[Block], count: int, influence: Mapping[str, float], error: Callable[[Sequence[Block]], float]
) -> list[Block]:
    """`count` blocks to drop: one by one, of those nearest to the identity the one without which the error is least."""
    left = sorted(found, key=lambda block: influence[block.name])
    gone: list[Block] = []
    for _ in range(count):
        errors = {block.name: error([*gone, block]) for block in left[:_TRIED]}
        best = min(left[:_TRIED], key=lambda block: errors[block.name])
        gone.append(best)
        left.remove(best)
    return sorted(gone, key=lambda block: block.nodes)


def blocks_asked(text: str, there: int) -> int:
    """How many blocks "N" or "P%" means. Raises RequestError, and PlanError for more than there are."""
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not value > 0 or (value > 100 if percent else not value.is_integer()):
        raise RequestError(f"`drop_blocks` must be a number of blocks or a percentage, like 3 or '25%', not '{text}'")
    count = max(1, round(value / 100 * there)) if percent else int(value)
    if count > there:
        raise PlanError(f"`drop_blocks='{text}'`: the model has only {there} residual blocks that can be dropped")
    return count


def _beyond(limits: Limits, at: Partition, count: int, size: Callable[[Partition], float]) -> str:
    if limits.share is not None:
        most = 100 * at.layers / max(1, count)
        return f"`share={limits.share:g}` cannot be reached: at most {most:.0f} % of the layers can share weights"
    return (
        f"`target_size={limits.target_size:g}` cannot be reached by sharing weights: at best {size(at):.2f} of the "
        "file remain"
    )


def size_of(model: Model, whole: int, beside: int = 0) -> Callable[[Partition], float]:
    """The share of `whole` bytes that the file takes under a partition: less by the weights that are shared, more by
    the bytes `beside`."""

    def share(at: Partition) -> float:
        saved = 0
        for one in at.sets:
            item = model.constants.array(one[0][0].weight).dtype.itemsize
            saved += (len(one) - 1) * item * sum(layer.size for layer in one[0])
        return (whole - saved + beside) / whole

    return share
