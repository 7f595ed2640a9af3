"""Memory: whether a model may be loaded whole, to decide on it or to run it, and what folding it otherwise takes."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection

from ..analysis.costs import count_parameters
from ..analysis.groups import ChannelGroup
from ..analysis.result import Analysis
from ..errors import RequestError
from ..folding.features import MOST_ENTRIES
from ..folding.gram import SINGLE
from ..model.model import PROTOBUF_LIMIT, Model
from ..units import in_bytes

_FLOAT = 4  # bytes that a parameter takes in a session on the CPU, whatever it takes in the file
_SESSION = 2  # times the parameters: as they are loaded, and as kernels want them
_LIBRARIES = 250e6  # bytes of the process before it reads a weight
_ANALYSING, _ANALYSED = 130, 40  # bytes for every atom of the graph: at most, and from then on
_BALANCING = 24  # bytes for every feature, where all are in memory at once
_BLOCKS = 300e6  # bytes for features in blocks
_WRITING = 20  # bytes for every number of a weight that is written: as it is, in float32, turned, merged, and the next
_CHECKING = 14  # bytes for every number of the block that is run alone: as it was made, cut out, and in bytes


def session_bytes(model: Model) -> int:
    """What a session of the whole model takes at most, but for its activations."""
    return _SESSION * max(_FLOAT * count_parameters(model.proto), model.size)


def streamed(model: Model, max_memory: int | None) -> bool:
    """Whether a model is folded weight by weight, and never loaded whole to decide on it.

    That is so where it takes more than `max_memory` bytes to run it, or passes protobuf's 2 GiB, and depends on nothing
    else: the same request gives the same file on any machine.
    """
    return model.size >= PROTOBUF_LIMIT or (max_memory is not None and session_bytes(model) > max_memory)


def comparable(model: Model, max_memory: int | None) -> bool:
    """Whether the model and the result may run beside each other, within `max_memory` and what the machine has free."""
    limits = [limit for limit in (max_memory, _free()) if limit is not None]
    return all(2 * session_bytes(model) <= limit for limit in limits)


def most_memory(model: Model, analysis: Analysis, chosen: Collection[str], jobs: int) -> int:
    """Bytes at most for a streamed fold of the groups `chosen`, so many `jobs` at a time.

    It goes by the widest group, and by the positions of all axes of the graph; docs/large-models.md explains the parts.
    """
    groups = [group for group in analysis.groups if group.name in chosen]
    sizes = [group_sizes(model, group) for group in groups]
    merging = max((_merging(group.size, sum(each)) for group, each in zip(groups, sizes, strict=True)), default=0.0)
    writing = _WRITING * max((max(each) for each in sizes), default=0)
    checking = _CHECKING * max((sum(each) for each in sizes), default=0)
    later = _ANALYSED * analysis.atoms + max(jobs * merging, writing, checking)
    return int(_LIBRARIES + max(_ANALYSING * analysis.atoms, later))


def check_memory(model: Model, analysis: Analysis, chosen: Collection[str], jobs: int, limit: int | None) -> None:
    """Raise RequestError where `most_memory` exceeds the `limit`."""
    needed = most_memory(model, analysis, chosen, jobs)
    if limit is not None and needed > limit:
        fewer = ", take fewer `jobs`" if jobs > 1 else ""
        raise RequestError(
            f"`max_memory` is {in_bytes(limit)}, too little: the widest group may need {in_bytes(needed)}. Allow "
            f"more{fewer}, or leave that group out with `exclude`"
        )


def _merging(n: int, entries: int) -> float:
    """Bytes to cluster `n` channels: features and their Gram matrix; then that, and what two starts need beside it:
    half as much each in float32, and the sums of all clusters in float64."""
    gram = float(n) ** 2 * (4 if n > SINGLE else 8)
    blocks = n > SINGLE or entries > MOST_ENTRIES
    return max(_BLOCKS + gram if blocks else _BALANCING * entries + 2 * gram, (2 if n > SINGLE else 3) * gram)


def group_sizes(model: Model, group: ChannelGroup) -> list[int]:
    """The numbers in each parameter of a group."""
    shapes = (model.graph.tensor(tensor).shape or () for tensor in {p.tensor for p in group.parameters})
    return [math.prod(d for d in shape if isinstance(d, int)) for shape in shapes]


def _free() -> int | None:
    """Bytes of memory that are free or could be; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found = re.search(r"MemAvailable:\s*(\d+) kB", file.read())
            return int(found[1]) * 1024 if found else None
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return None
