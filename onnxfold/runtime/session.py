"""The only module that opens onnxruntime sessions."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from ..errors import ExecutionError, RequestError
from ..model.model import Model
from ..model.save import inline
from .builds import lacking, unusable


@cache
def _imported() -> Any:
    """Raises RequestError where onnxruntime cannot be used."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RequestError(unusable(error)) from error
    if not hasattr(onnxruntime, "InferenceSession"):  # a folder that another build left behind
        raise RequestError(unusable(None))
    return onnxruntime


class _Onnxruntime:
    """onnxruntime, imported when something of it is first used: reports and the cache do without it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_imported(), name)


ort: Any = _Onnxruntime()
_log = logging.getLogger(__name__)


def quickest(model: Model, providers: Sequence[str]) -> str:
    """CUDA where it is among `providers` and starts (if not, the checks of the result say so), else the CPU."""
    if SHORT["cuda"] in providers:
        try:
            Session.of(model, SHORT["cuda"])
        except ExecutionError as error:
            _log.info("CUDA does not start (%s): the CPU runs", brief(error))
            return SHORT["cpu"]
        return SHORT["cuda"]
    return SHORT["cpu"]


def brief(error: BaseException) -> str:
    """The first line of an error, without onnxruntime's prefixes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    first = " ".join(lines[: 2 if lines[0].endswith("following indices") else 1])  # which ones, says the next line
    return re.sub(r"^\[ONNXRuntimeError\] : (\d+ : [A-Z_]+ : )?", "", first)[:200].rstrip(". ")


def short(provider: str) -> str:
    """A provider's name as people say it: CPU, CUDA, Tensorrt."""
    name = provider.removesuffix("ExecutionProvider")
    return name.upper() if name.lower() in ("cpu", "cuda") else name


Feeds = Mapping[str, NDArray[Any]]
SHORT = {
    "cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider",
    "directml": "DmlExecutionProvider",
}  # fmt: skip
_DTYPES: Mapping[str, Any] = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(int16)": np.int16, "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8, "tensor(uint16)": np.uint16, "tensor(uint32)": np.uint32, "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_, "tensor(string)": np.str_,
}  # fmt: skip


@dataclass(frozen=True)
class InputSpec:
    """A model input as onnxruntime sees it; `dtype` None for what is not a plain tensor."""

    name: str
    dtype: Any
    shape: tuple[int | str | None, ...]


@contextmanager
def running() -> Iterator[None]:
    """To be put around one call into onnxruntime, with none of ours inside. Raises ExecutionError for what it raises,
    whose exceptions share no base class, but for MemoryError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise ExecutionError(str(error) or type(error).__name__) from error


class Session:
    """A model loaded by one execution provider, without falling back to another in silence.

    Raises ExecutionError where onnxruntime does not load it, or cannot start the provider.
    """

    def __init__(
        self,
        model: str | Path | bytes,
        provider: str = SHORT["cpu"],
        threads: int = 0,
        profile: Path | None = None,
        lean: bool = False,
        unpacked: bool = False,
        idle: bool = False,
    ) -> None:
        """`profile`: the beginning of the name of a file for onnxruntime's profile; see `end_profile`. `lean`: for few
        runs of large inputs: no block for all activations is kept beside the memory of the first run. `unpacked`: for
        few runs with large weights: no weight is kept in another form (float32, blocks for kernels) beside its own.
        `idle`: it only tells its inputs and outputs and is never run, so nothing is optimized."""
        options = ort.SessionOptions()
        if idle:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if unpacked or idle:
            options.add_session_config_entry("session.disable_prepacking", "1")
        left_out = {"disabled_optimizers": ["ConstantFolding"]} if unpacked else {}
        options.enable_mem_pattern = not lean
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        # threads that wait for the next run would slow the model that runs in between
        options.add_session_config_entry("session.force_spinning_stop", "1")
        providers = [provider] if provider == SHORT["cpu"] else [provider, SHORT["cpu"]]
        source = model if isinstance(model, bytes) else os.fspath(model)
        # without the fallback, which prints and then runs on another provider
        with running():
            self._session = ort.InferenceSession(source, options, providers=providers, enable_fallback=0, **left_out)
        if provider not in self._session.get_providers():
            raise ExecutionError(f"onnxruntime could not start {provider} and fell back to the CPU")
        _log.debug(
            "session of %s on %s", f"{len(source)} bytes" if isinstance(source, bytes) else source, short(provider)
        )
        self.inputs = tuple(InputSpec(i.name, _DTYPES.get(i.type), tuple(i.shape)) for i in self._session.get_inputs())
        self.outputs = tuple(o.name for o in self._session.get_outputs())

    @classmethod
    def of(cls, model: Model, provider: str = SHORT["cpu"]) -> Session:
        """`model` as it was loaded."""
        return cls.of_version(model.proto, model.folder, provider)

    @classmethod
    def idle(cls, model: Model) -> Session:
        """`model` as it was loaded, to ask for its inputs and outputs only."""
        content = serialized(inline(model.proto, model.folder))
        try:
            return cls(content, idle=True)
        except ExecutionError:  # of some models only the optimized form runs
            return cls(content)

    @classmethod
    def of_version(
        cls,
        proto: ModelProto,
        folder: Path | None,
        provider: str = SHORT["cpu"],
        as_is: bool = False,
        lean: bool = False,
    ) -> Session:
        """A version of a model whose external data is in `folder`; see `inline` for `as_is`."""
        return cls(serialized(inline(proto, folder, as_is)), provider, lean=lean)

    def run(self, feeds: Feeds) -> list[Any]:
        """All outputs, in order. Raises ExecutionError where onnxruntime does not run the model on `feeds`."""
        given = dict(feeds)
        with running():
            return list(self._session.run(None, given))

    def end_profile(self) -> Path:
        """Write the profile of all runs so far, as JSON, and say where it is."""
        with running():
            return Path(self._session.end_profiling())

    def fitted(self, feeds: Feeds) -> Feeds:
        """`feeds` with as many heads in caches as this version of a model has (see `fitted`)."""
        return fitted(feeds, {spec.name: spec.shape for spec in self.inputs})


def serialized(proto: ModelProto) -> bytes:
    """The bytes of a model. Raises ExecutionError where they would be too many for protobuf."""
    with running():  # protobuf refuses more than 2 GiB
        return bytes(proto.SerializeToString())


def fitted(feeds: Feeds, shapes: Mapping[str, Sequence[int | str | None]]) -> dict[str, NDArray[Any]]:
    """`feeds` for a version of their model whose inputs are of `shapes`.

    Caches of attention that hold nothing (no tokens, or zeros) are cut to the heads that it has; all else is as it was.
    """
    found = dict(feeds)
    for name, x in feeds.items():
        shape = shapes.get(name, ())
        if x.ndim != len(shape) or x.ndim < 4:
            continue
        fewer = [i for i, n in enumerate(shape) if isinstance(n, int) and 0 < n < x.shape[i]]
        if len(fewer) == 1 and not x.any():
            found[name] = np.ascontiguousarray(np.take(x, range(int(shape[fewer[0]] or 0)), fewer[0]))
    return found


def resolve_providers(names: Sequence[str] | None) -> list[str]:
    """The providers that the user asked for; None means the CPU, and CUDA where it is offered.

    Raises RequestError for one that is not here.
    """
    offered, known = ort.get_available_providers(), ort.get_all_providers()
    if names is None:
        return [p for p in (SHORT["cpu"], SHORT["cuda"]) if p in offered]
    names = [names] if isinstance(names, str) else names
    asked = [SHORT.get(name.lower(), name) for name in names if name]
    for name in asked:
        if name not in known and name not in offered:
            raise RequestError(
                f"onnxruntime has no provider '{name}': choose from {', '.join(SHORT)}, or its own names "
                f"({', '.join(sorted(known)[:3])}, ...)"
            )
    if not asked:
        raise RequestError("name at least one provider, for example `providers=['cpu']`")
    missing = next((name for name in asked if name not in offered), "")
    if missing:
        raise RequestError(lacking(missing, [short(one) for one in offered]))
    return list(dict.fromkeys(asked))


_LOADING = "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1], providers=sys.argv[2:])"


def crashes(path: Path, provider: str = SHORT["cpu"]) -> bool:
    """Whether onnxruntime ends its whole process when it loads a file: tried in a process of its own.

    Version 1.32 does with some models in float16 (its fusion of Transpose into MatMul)."""
    nothing = subprocess.DEVNULL
    done = subprocess.run(
        [sys.executable, "-c", _LOADING, str(path), provider], stdin=nothing, stdout=nothing, stderr=nothing,
        check=False,
    )  # fmt: skip
    return done.returncode not in (0, 1)  # 1: an exception, which whoever loads it here sees


def silence() -> None:
    """Keep onnxruntime's own log off the terminal, for the whole process; errors come as exceptions all the same."""
    ort.set_default_logger_severity(4)


def version() -> str:
    """The version of onnxruntime."""
    return str(ort.__version__)
