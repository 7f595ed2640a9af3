"""What a report was made with: the command, versions, the processor, and which files these were."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from ..model.metadata import installed, sha256
from ..runtime.session import version as runtime_version

PACKAGES = ("onnxfold", "onnx", "numpy")


@dataclass(frozen=True)
class Provenance:
    """What it takes to find or repeat a run.

    Attributes:
        command: as it was given on the command line, quoted for a shell; '' from Python.
        versions: of onnxfold, Python, and the packages that results depend on.
        processor: its name as the system has it.
        created: when, in UTC (ISO 8601).
        source_sha256, output_sha256: of the .onnx files alone, not of weights beside them; None for a model in memory.
    """

    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    processor: str = ""
    created: str = ""
    source_sha256: str | None = None
    output_sha256: str | None = None


def provenance(source: Path | None, output: Path | None = None) -> Provenance:
    """Of a run that ends now; `source` and `output` are None where they are not files."""
    return Provenance(
        "", versions(), processor(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), sha256(source), sha256(output)
    )


def versions() -> dict[str, str]:
    """By name, the version of everything that results depend on."""
    found = {"python": platform.python_version(), "onnxruntime": runtime_version()}
    return dict(sorted((found | {name: installed(name) for name in PACKAGES}).items()))


def processor() -> str:
    """Its name as the system has it."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return name
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)


class Made(Protocol):
    """A report."""

    @property
    def provenance(self) -> Provenance | None: ...


R = TypeVar("R", bound=Made)


def with_command(report: R, command: str) -> R:
    """A report with the command that it is of."""
    if report.provenance is None:
        return report
    return cast(R, replace(cast(Any, report), provenance=replace(report.provenance, command=command)))
