"""The same request gives the same bytes, whatever the clock says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import MODELS

import onnxfold


@pytest.mark.parametrize(
    "asked",
    [
        {"effort": "fast", "ratio": 0.3},
        {"target_macs": 0.6},
        {"effort": "fast", "ratio": 0.3, "calibration": "images", "refine": True, "steps": 3},
    ],
    ids=lambda asked: ",".join(asked),
)
def test_a_machine_twenty_times_as_slow(asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxfold.calibration.samples.SYNTHETIC", {e: (32, 6) for e in onnxfold.Effort})
    if "calibration" in asked:
        asked = {**asked, "calibration": images()}
    source = MODELS / "digits_resnet_bn.onnx"
    found = []
    clock = time.perf_counter
    for speed in (1, 20):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / str(speed)))
        monkeypatch.setattr(time, "perf_counter", lambda speed=speed: speed * clock())
        out = tmp_path / f"{speed}.onnx"
        onnxfold.fold(source, out, latency=False, **asked)
        found.append(out.read_bytes())
    assert found[0] == found[1]


def images() -> dict[str, Any]:
    """Smooth noise as images of digits."""
    rng = np.random.default_rng(0)
    return {"image": rng.standard_normal((32, 1, 8, 8)).astype(np.float32)}
