"""Spectrograms of sounds, as front ends of speech models compute them: logarithms of power in bands of the mel scale,
and cepstra of these (Davis and Mermelstein, IEEE Transactions on Acoustics, Speech and Signal Processing, 1980)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from .sounds import RATE, Floats

WINDOW, HOP = 400, 160  # samples: 25 ms every 10
_POINTS, _FINE = 512, 1024  # of a Fourier transform; where bands are many, and the lowest narrow
_WIDE = 80  # bands: of more, some would have no point of the shorter transform
_FLOOR = 1e-6  # of power
_CEPSTRA, _BANDS = 20, 40  # at most so many numbers a frame are cepstra, of so many bands


def samples_of(frames: int) -> int:
    """How many samples of sound so many frames take."""
    return frames * HOP + WINDOW


def log_mel(waves: Floats, frames: int, bins: int) -> Floats:
    """[count, frames, bins] natural logarithms of power, of sounds [count, `samples_of(frames)`]; where there are no
    more than 20 bins [count, frames, 40], to take the `cepstra` of.

    Full scale is about 9, silence -13.8.
    """
    points = _FINE if bins > _WIDE else _POINTS
    bands = _mel(_BANDS if has_cepstra(bins) else bins, points)
    places = np.arange(frames)[:, None] * HOP + np.arange(WINDOW)
    window = np.hanning(WINDOW + 1)[:-1]
    made = np.empty((len(waves), frames, bands.shape[1]), np.float32)
    for row, wave in zip(made, waves, strict=True):
        row[:] = np.log(np.abs(np.fft.rfft(wave[places] * window, points)) ** 2 @ bands + _FLOOR)
    return made


def has_cepstra(bins: int) -> bool:
    """Whether so few numbers a frame are cepstra."""
    return bins <= _CEPSTRA


def cepstra(log_powers: Floats, count: int) -> Floats:
    """[N, frames, count] cepstra of [N, frames, bands] logarithms: their orthonormal cosine transform (DCT-II)."""
    return np.asarray(dct(log_powers, axis=2, norm="ortho")[..., :count], np.float32)


def _mel(bins: int, points: int) -> NDArray[np.float64]:
    """[frequencies, bins] triangular weights, evenly spaced on the mel scale of HTK up to half the rate."""
    edges = 700 * np.expm1(np.linspace(0, np.log1p(RATE / 2 / 700), bins + 2))
    frequency = np.fft.rfftfreq(points, 1 / RATE)[:, None]
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return np.asarray(np.maximum(np.minimum(rising, falling), 0) * (_POINTS / points))
