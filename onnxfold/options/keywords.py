"""The keywords of the public functions, with their types; `parameters` says what each may be."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from .choices import Clusterer, Distance, Effort, Fusion, Method, Quantization, Recovery, Step
from .devices import Device
from .preprocess import Preprocess, PreprocessFile


class InputKeywords(TypedDict, total=False):
    """What everything takes that runs a model on inputs."""

    calibration: object
    samples: int
    preprocess: Preprocess | PreprocessFile | str | os.PathLike[str] | None
    input_shapes: Mapping[str, Sequence[int]] | None
    providers: Sequence[str] | None
    seed: int


class SampleKeywords(InputKeywords, total=False):
    """What everything takes that may make inputs of its own."""

    effort: Effort | str


class MetricKeywords(TypedDict, total=False):
    """The user's own measure."""

    metric: Callable[[str], object] | str | None
    metric_timeout: float


class ShrinkKeywords(SampleKeywords, MetricKeywords, total=False):
    """What everything takes that makes models smaller: `fold`, `fuse` and `sweep`."""

    include: Sequence[str]
    exclude: Sequence[str]
    recovery: Recovery | str
    latency: bool
    latency_command: str | None
    latency_timeout: float


class ResultKeywords(ShrinkKeywords, total=False):
    """What `fold` and `fuse` take, which write a model."""

    target_size: float | None
    max_error: float | None
    max_drop: float | None
    refine: bool
    steps: int | None
    quantize: bool | Quantization | str | None
    external_data: bool
    allow_unmeasured: bool
    provenance: bool


class SweepKeywords(ShrinkKeywords, total=False):
    """What `fold` and `sweep` take."""

    method: Method | str
    clusterer: Clusterer | str
    round_to: int | str
    device: Device | str | None
    fold_heads: bool
    fold_residual: bool
    threads: int


class ChooseKeywords(SweepKeywords, total=False):
    """What `choose` takes."""

    allow: str | Sequence[Step | str]


class FoldKeywords(SweepKeywords, ResultKeywords, total=False):
    """What `fold` takes."""

    ratio: float | None
    target_params: float | None
    target_macs: float | None
    target_latency: float | None
    min_agreement: float | None
    allow: str | Sequence[Step | str]
    group_ratios: Mapping[str, float] | None
    plan: object
    save_plan: str | os.PathLike[str] | None
    synthetic: str | os.PathLike[str] | None
    max_memory: int | None
    jobs: int
    scheduler: str
    resume: bool
    keep_bn: bool


class RankKeywords(SampleKeywords, total=False):
    """What `fuse` and `rank_layers` take."""

    distance: Distance | str
    whole: bool
    align: bool


class FuseKeywords(RankKeywords, ResultKeywords, total=False):
    """What `fuse` takes."""

    how: Fusion | str | None
    share: float | None
    drop_blocks: str | int | None
    folding: Mapping[str, Any] | None


class CompareKeywords(InputKeywords, MetricKeywords, total=False):
    """What `compare` takes."""

    latency: bool
    latency_command: str | None
    latency_timeout: float
