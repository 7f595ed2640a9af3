"""What passes are, the state that they hand on, and the pipeline that runs them in a list.

A pass takes a `State` and returns a new one; nothing in a state changes afterwards. The idea of stated requirements
that the frame checks is that of onnx/ir-py's passes.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from onnx import ModelProto

from ..calibration.samples import Samples
from ..calibration.synthetic.heard import second
from ..compat import add_note
from ..errors import RequestError, RuleError
from ..evaluation.device_latency import CommandTimer
from ..model.leftovers import scratch_folder, sweep
from ..model.model import Model, Shapes, Source, load, named
from ..model.save import Staged
from ..model.tensors import Pending
from ..options.parts import RuntimeOptions
from ..planning.memory import streamed
from ..planning.planner import Planner
from ..planning.subject import CheckInputs, Subject
from ..progress import Clock, Phase, Progress, begun, entered, shown, silent
from ..runtime.lengths import Settled, settled
from ..runtime.session import resolve_providers, short
from ..units import brief
from .distillation.block_targets import Counterparts

R = TypeVar("R")
C = TypeVar("C")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A version of the model: `proto`, whose values in `pending` are computed when it is written.

    `counterparts` says what activations of it are of those of the original (to train on); `shrunk`: whether anything
    went; `quantized`: whether it is in INT8.
    """

    proto: ModelProto = field(repr=False)
    pending: Mapping[str, Pending] = field(default_factory=dict, repr=False)
    counterparts: Callable[[], Counterparts] = field(default=Counterparts, repr=False)
    shrunk: bool = False
    quantized: bool = False

    def becoming(self, proto: ModelProto, quantized: bool = False) -> Candidate:
        """The same version with other weights."""
        return replace(self, proto=proto, quantized=quantized)


@dataclass(frozen=True, eq=False)
class State:
    """What passes know of one model.

    Attributes:
        source: the user's model, never replaced; `name` is what reports call it.
        current: the version that is being made of it.
        subject: its analysis, costs, and the groups that may shrink.
        samples: what decisions are measured on; None where there are none.
        planner: decides budgets for it.
        inputs: what results are checked on.
        staged: the current version as a file under a temporary name.
        records: what passes did, in order, for the report.
        lengths: the shapes of the inputs that are made, and in which costs are counted.
    """

    source: Model = field(repr=False)
    name: str
    current: Candidate
    subject: Subject | None = field(default=None, repr=False)
    samples: Samples | None = None
    planner: Planner | None = field(default=None, repr=False)
    inputs: CheckInputs | None = field(default=None, repr=False)
    staged: Staged | None = field(default=None, repr=False)
    records: tuple[object, ...] = ()
    lengths: Settled = field(default_factory=lambda: Settled(None))

    @classmethod
    def load(cls, source: Source, shapes: Shapes, max_memory: int | None = None) -> State:
        """The state that a pipeline begins with; a model that takes more than `max_memory` bytes is not run. Raises
        ModelError, RequestError."""
        model = load(source, shapes)
        _log.info("read %s: %d nodes, %d bytes", named(source), len(model.graph.nodes), model.size)
        runs = not streamed(model, max_memory)
        lengths = settled(model, shapes, runs)
        if runs and not shapes and not lengths.refusal and (sound := second(model)):
            (shape,) = sound.values()
            note = f"sounds were made a second long, {[1, *shape[1:]]} (change that with `input_shapes`)"
            lengths = Settled(sound, note)
        return cls(model, named(source), Candidate(model.proto), lengths=lengths)

    @property
    def shapes(self) -> Shapes:
        """Shapes for inputs that are made, given or found."""
        return self.lengths.shapes

    @property
    def known(self) -> Subject:
        """The analysis. Raises RuleError where there is none yet."""
        if self.subject is None:
            raise RuleError("the model was not analyzed: a pass lacks 'analysis' in its requirements")
        return self.subject

    def adding(self, *records: object, **changes: Any) -> State:
        """A state with these records too, and with other fields changed."""
        return replace(self, records=(*self.records, *records), **changes)

    def found(self, kind: type[R]) -> R | None:
        """The last record of a kind; None where there is none."""
        return next((one for one in reversed(self.records) if isinstance(one, kind)), None)

    def done(self, kind: type[R]) -> R:
        """The last record of a kind. Raises RuleError where there is none."""
        record = self.found(kind)
        if record is None:
            raise RuleError(f"no pass left a {kind.__name__}")
        return record


class Run:
    """What all passes of a run share: providers, progress, the clock, a scratch folder, and what closes at the end.

    Files staged by passes vanish with the run unless they were committed.
    """

    def __init__(self, options: RuntimeOptions, progress: Progress[Any] = silent, clock: Clock | None = None) -> None:
        """Raises RequestError for providers that onnxruntime does not know, and for progress that cannot be called."""
        if not callable(progress):
            raise RequestError(f"`progress` must be callable with a title and a list, not {brief(progress)}")
        self.options, self.progress = options, progress
        self.providers = resolve_providers(options.providers)
        _log.info("runs on %s", ", ".join(map(short, self.providers)))
        self.clock = clock or Clock()
        self._stack = ExitStack()
        self._scratch: Path | None = None

    @property
    def scratch(self) -> Path:
        """A folder for files that go at the end."""
        if self._scratch is None:
            self._scratch = self.enter(scratch_folder())
        return self._scratch

    @property
    def timer(self) -> CommandTimer | None:
        """What measures latency on another device, where that is asked for."""
        command = self.options.latency_command
        return None if command is None else CommandTimer(command, self.options.latency_timeout)

    def target(self, path: str | None) -> Path:
        """Where a result is written: `path`, or a file that goes at the end."""
        return self.scratch / "result.onnx" if path is None else Path(path)

    def enter(self, manager: AbstractContextManager[C]) -> C:
        """What a context manager gives, until the run ends."""
        return self._stack.enter_context(manager)

    def inner(self) -> Run:
        """A run with the same clock that ends earlier."""
        return Run(self.options, self.progress, self.clock)

    def __enter__(self) -> Run:
        self.progress = self.enter(shown(self.progress))
        sweep(Path(tempfile.gettempdir()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, trace)


class Pass(Protocol):
    """One step of a run.

    `phases`: what users see it as, in order; none where it takes no time worth showing.
    `requires` and `provides` are names of what a state has: "analysis", "samples", "dropped", "planner", "candidate",
    "file", "verdict". `name` is what the times in reports are called.
    """

    @property
    def name(self) -> str: ...
    @property
    def requires(self) -> frozenset[str]: ...
    @property
    def provides(self) -> frozenset[str]: ...
    @property
    def phases(self) -> tuple[Phase, ...]: ...

    def check(self, state: State, run: Run) -> None:
        """Refuse what cannot be, before anything costs time: the state has an analysis, but nothing else yet."""

    def __call__(self, state: State, run: Run) -> State:
        """Do it."""


_WORTH_A_LINE = 0.005  # seconds of a stage: passes in a row under one name


class BasePass:
    """A pass that requires an analysis, provides nothing by name, and refuses nothing."""

    name = ""
    requires = frozenset(("analysis",))
    provides = frozenset[str]()
    phases: tuple[Phase, ...] = ()

    def check(self, state: State, run: Run) -> None:
        """Nothing to refuse."""


class Pipeline:
    """Passes in a list, run one after another, each timed under its name.

    As soon as there is an analysis, all passes that follow check what they were asked, before the next one runs.
    """

    def __init__(self, *passes: Pass, given: Sequence[str] = ()) -> None:
        """`given`: what the state has at the start. Raises RuleError for a pass whose requirements nothing meets."""
        self.passes, self._given = passes, frozenset(given)
        there = set(self._given)
        for one in passes:
            lacking = one.requires - there
            if lacking:
                raise RuleError(f"the pass '{one.name}' requires {sorted(lacking)}, which no pass before it provides")
            there |= one.provides

    def run(self, state: State, run: Run) -> State:
        """The state after all passes. Errors say, in a note, which passes ran before."""
        there, checked, stage = set(self._given), False, 0.0
        begun(run.progress, [phase for one in self.passes for phase in one.phases])
        for number, one in enumerate(self.passes):
            if "analysis" in there and not checked:
                checked = True
                for later in self.passes[number:]:
                    later.check(state, run)
            what, begin = type(one).__name__, time.perf_counter()
            _log.debug("%s starts (pass %d of %d)", what, number + 1, len(self.passes))
            try:
                with entered(run.progress, one.phases):
                    state = one(state, run)
            except Exception as error:
                before = ", ".join(done.name for done in self.passes[:number]) or "none"
                add_note(error, f"in the pass '{one.name}'; passes that ran before: {before}")
                raise
            there |= one.provides
            run.clock.mark(one.name)
            _log.debug("%s is done after %.4f s", what, time.perf_counter() - begin)
            stage += time.perf_counter() - begin
            if [later.name for later in self.passes[number + 1 : number + 2]] != [one.name]:
                if stage >= _WORTH_A_LINE:
                    _log.info("%s took %.2f s", one.name, stage)
                stage = 0.0
        return state
