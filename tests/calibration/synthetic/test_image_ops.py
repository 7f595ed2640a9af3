"""Layout, noise, movements, smoothness and contact sheets."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from onnxfold.calibration.synthetic.image_ops import contact_sheet, moved, moved_back, noise, roughness, spatial_axes


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((2, 3, 32, 32), (2, 3)),
        ((2, 32, 32, 3), (1, 2)),
        ((2, 1, 24, 10), (2, 3)),
        ((2, 1, 49, 10), ()),
        ((2, 64), ()),
        ((2, 16, 96, 40), ()),
        ((2, 3, 4, 4), ()),
    ],
)
def test_spatial_axes(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    assert spatial_axes(shape) == axes


def test_noise_is_smooth_and_standardized() -> None:
    x = noise(np.random.default_rng(0), (8, 3, 32, 32))
    assert abs(float(x.std()) - 1) < 1e-3
    assert roughness(x, (2, 3))[0] < 2  # white noise has 4


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [(0, 0), (2, -3)])
def test_moves_are_undone(shift: tuple[int, int], flip: bool) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 9)).astype(np.float32)
    there = moved(x, (2, 3), shift, flip)
    np.testing.assert_array_equal(moved_back(there, (2, 3), shift, flip), x)
    assert (shift == (0, 0) and not flip) == np.array_equal(there, x)


def test_gradient_of_roughness() -> None:
    rng = np.random.default_rng(0)
    x, way = (rng.standard_normal((2, 3, 5, 6)) for _ in range(2))
    slope = roughness(x.astype(np.float32), (2, 3))[1].astype(np.float64)
    ahead, behind = (roughness((x + s * way).astype(np.float32), (2, 3))[0] for s in (1, -1))
    assert (ahead - behind) / 2 == pytest.approx(float(np.sum(slope * way)), rel=1e-4)


def test_contact_sheet() -> None:
    png = contact_sheet({"x": np.random.default_rng(0).standard_normal((10, 3, 8, 12)).astype(np.float32)})
    assert png is not None and png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", png[16:24]) == (8 * 13, 2 * 9)
    assert contact_sheet({"x": np.zeros((4, 64), np.float32)}) is None
    length = struct.unpack(">I", png[33:37])[0]
    assert len(zlib.decompress(png[41 : 41 + length])) == 2 * 9 * (8 * 13 * 3 + 1)
