"""The keywords of `fold`, `fuse`, `sweep` and `rank_layers`, with their types; `parameters` says what each may be."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from .choices import Clusterer, Distance, Effort, Fusion, Method, Recovery
from .preprocess import Preprocess


class SampleKeywords(TypedDict, total=False):
    """What everything takes that looks at samples."""

    effort: Effort | str
    calibration: object
    samples: int
    preprocess: Preprocess | str | None
    input_shapes: Mapping[str, Sequence[int]] | None
    providers: Sequence[str] | None
    seed: int


class MetricKeywords(TypedDict, total=False):
    """The user's own measure."""

    metric: Callable[[str], object] | str | None
    metric_timeout: float


class SweepKeywords(SampleKeywords, MetricKeywords, total=False):
    """What `fold` and `sweep` take."""

    method: Method | str
    recovery: Recovery | str
    clusterer: Clusterer | str
    round_to: int
    include: Sequence[str]
    exclude: Sequence[str]
    fold_heads: bool
    threads: int
    latency: bool


class FoldKeywords(SweepKeywords, total=False):
    """What `fold` takes."""

    ratio: float | None
    target_params: float | None
    target_macs: float | None
    target_size: float | None
    target_latency: float | None
    max_error: float | None
    min_agreement: float | None
    max_drop: float | None
    group_ratios: Mapping[str, float] | None
    synthetic: str | os.PathLike[str] | None
    refine: bool
    steps: int | None
    quantize: bool
    external_data: bool
    max_memory: int | None
    jobs: int
    scheduler: str
    resume: bool
    allow_unmeasured: bool


class FuseKeywords(SampleKeywords, MetricKeywords, total=False):
    """What `fuse` takes."""

    how: Fusion | str | None
    distance: Distance | str
    share: float | None
    target_size: float | None
    max_error: float | None
    max_drop: float | None
    drop_blocks: str | int | None
    whole: bool
    align: bool
    folding: Mapping[str, Any] | None
    include: Sequence[str]
    exclude: Sequence[str]
    recovery: Recovery | str
    refine: bool
    steps: int | None
    quantize: bool
    latency: bool
    external_data: bool
    allow_unmeasured: bool


class CompareKeywords(MetricKeywords, total=False):
    """What `compare` takes."""

    calibration: object
    samples: int
    preprocess: Preprocess | str | None
    input_shapes: Mapping[str, Sequence[int]] | None
    providers: Sequence[str] | None
    seed: int
    latency: bool


class RankKeywords(SampleKeywords, total=False):
    """What `rank_layers` takes."""

    distance: Distance | str
    whole: bool
    align: bool
