"""How every compression ends: trained and quantized where asked for, written, checked, and only then put in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx import ModelProto

from ..calibration.samples import Samples
from ..evaluation.verdict import Check, check
from ..model.half_precision import BFLOAT16, holds
from ..model.kv_cache import Cache
from ..model.model import Model
from ..model.save import Staged, inline, on_disk, staged
from ..model.tensors import Pending
from ..options.budget import Aim
from ..options.choices import Effort
from ..options.options import Training
from ..progress import Clock, Progress
from ..runtime.session import Feeds, Session, quickest
from . import distillation as refinement
from . import quantization as integers
from .distillation.result import RefinementReport


@dataclass(frozen=True)
class Checking:
    """How a result is compared with the original: see `validate.check`. `described`: what `feeds` are."""

    feeds: Feeds | Callable[[Session], Feeds]
    described: str
    providers: Sequence[str]
    missing: Sequence[str]
    latency: bool
    too_large: bool = False
    caches: Sequence[Cache] = ()


@dataclass(frozen=True)
class Ended:
    """The compressed model as it is under a temporary name, and what there is to say of it."""

    proto: ModelProto = field(repr=False)
    verdict: Check
    refined: RefinementReport | None
    quantized: integers.QuantizationReport | None
    written: Staged


@dataclass(frozen=True)
class Ending:
    """The last stages for versions of `original`, written to `target`; other files go to the folder `scratch`.

    `training`: None for no refinement; `quantized`: whether INT8 is the last step; `external`: whether weights of over
    1 KiB go beside the file.
    """

    original: Model
    evidence: Samples | None
    target: Path
    scratch: Path
    training: Training | None
    quantized: bool
    external: bool
    clock: Clock
    progress: Progress[Any]

    @contextmanager
    def of(
        self,
        proto: ModelProto,
        checking: Checking,
        *,
        pairs: refinement.Counterparts | None = None,
        budget: tuple[Aim, float] | None = None,
        pending: Mapping[str, Pending] | None = None,
        within: Path | None = None,
    ) -> Iterator[Ended]:
        """End with `proto`. `pairs`: as `refinement.refine` has them; `budget`: of the whole; others: see `staged`.

        Nothing is left behind unless `Ended.commit` is called inside. Raises QuantizationError, and what `staged` does.
        """
        refined: RefinementReport | None = None
        if self.training is not None:
            proto, refined = self._trained(proto, self.training, pairs or refinement.Counterparts(), checking.providers)
            self.clock.mark("refine")
        step, external = None, self.external
        if self.quantized:
            step = integers.quantize(self.original, proto, self.evidence, self.target, external)
            proto, external = step.proto, external or bool(self.original.data_files())
            self.clock.mark("quantize")
        with staged(proto, self.original, self.target, external, pending, self.progress, within) as written:
            self.clock.mark("write")
            before, quantized = on_disk(self.original, self.scratch), None
            verdict = check(
                before, written.path, checking.feeds, providers=checking.providers, missing=checking.missing,
                protos=(self.original.proto, proto), inputs=checking.described, latency=checking.latency,
                too_large=checking.too_large, in_float32=None if pending else in_float32(self.original, proto),
                caches=checking.caches,
            )  # fmt: skip
            if step is not None:
                verdict, quantized = step.judged(verdict, before, written, checking.feeds, checking.latency, budget)
            yield Ended(proto, verdict, refined, quantized, written)

    def _trained(
        self, proto: ModelProto, how: Training, pairs: refinement.Counterparts, providers: Sequence[str]
    ) -> tuple[ModelProto, RefinementReport]:
        """`proto` with its weights trained on the samples, or as it was where that is no better; and the report."""
        original, evidence = self.original, self.evidence
        if evidence is None:
            note = "there are no inputs to train on, as for models that stay on disk"
            if how.effort is Effort.FAST:
                note = "--effort fast makes no inputs: give --calibration or take --effort balanced"
            return proto, RefinementReport(False, float("nan"), float("nan"), 0, (), (), note)
        count, batch = refinement.extent(
            original, how.effort, refinement.sample_shapes(original, evidence), how.steps
        )  # fmt: skip
        settings = refinement.TrainSettings(count, batch, how.seed, quickest(original, providers))
        found = refinement.refine(original, proto, evidence, settings, pairs, self.progress)
        report = RefinementReport(
            found.improved, found.before, found.after, found.blocks, found.losses, found.errors, found.note
        )
        return refinement.refined(proto, found.arrays, original.folder) if found.improved else proto, report


def in_float32(old: Model, new: ModelProto, folder: Path | None = None) -> Callable[[], tuple[bytes, bytes]] | None:
    """Makes copies of two models in which bfloat16, of which CPUs run little, is float32; None if there is none."""
    if not holds(old.proto, BFLOAT16):
        return None
    return lambda: (
        inline(old.proto, old.folder).SerializeToString(), inline(new, folder or old.folder).SerializeToString()
    )  # fmt: skip
