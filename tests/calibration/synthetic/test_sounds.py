"""Sounds made by formulas, and their spectrograms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnxfold.calibration.synthetic.sounds import RATE, Floats, tones, voices
from onnxfold.calibration.synthetic.spectrograms import cepstra, has_cepstra, log_mel, samples_of

Source = Callable[[np.random.Generator, int, int], Floats]
SOURCES = pytest.mark.parametrize("source", [voices, tones])


@SOURCES
def test_sounds_stay_in_range_and_differ_in_loudness(source: Source) -> None:
    made, again = (source(np.random.default_rng(3), 24, RATE) for _ in range(2))
    assert made.shape == (24, RATE) and made.dtype == np.float32 and (made == again).all()
    assert np.abs(made).max() <= 1 and np.abs(made).min(axis=1).max() < 0.01
    loud = 20 * np.log10(made.std(axis=1))
    assert -45 < loud.min() < -25 and -25 < loud.max() < -8


@SOURCES
@pytest.mark.parametrize("length", [1, 2, 400])
def test_short_sounds(source: Source, length: int) -> None:
    made = source(np.random.default_rng(0), 3, length)
    assert made.shape == (3, length) and np.isfinite(made).all()


def test_a_voice_has_power_where_formants_are_and_less_above() -> None:
    made = voices(np.random.default_rng(1), 32, RATE)
    power = (np.abs(np.fft.rfft(made / made.std(axis=1, keepdims=True))) ** 2).mean(axis=0)
    hertz = np.fft.rfftfreq(RATE, 1 / RATE)
    low, high = (power[(hertz >= a) & (hertz < b)].mean() for a, b in ((200, 1000), (5000, 7500)))
    assert low > 30 * high, "speech falls off with frequency"


def test_voices_pause_and_tones_begin_at_once() -> None:
    """Frames of a tenth of the mean power and less: speech has syllables and pauses."""
    made = voices(np.random.default_rng(1), 16, RATE).reshape(16, -1, 400)
    quiet = (made**2).mean(axis=2) < 0.1 * (made**2).mean(axis=(1, 2))[:, None]
    assert 0.1 < quiet.mean() < 0.7


@pytest.mark.parametrize(("hertz", "bins"), [(440.0, 40), (1000.0, 64), (3000.0, 80), (440.0, 128)])
def test_a_tone_is_in_its_band_of_the_mel_scale(hertz: float, bins: int) -> None:
    frames = 20
    wave = np.sin(2 * np.pi * hertz * np.arange(samples_of(frames)) / RATE).astype(np.float32)
    found = log_mel(wave[None], frames, bins)
    assert found.shape == (1, frames, bins)
    place = 2595 * np.log10(1 + hertz / 700) / (2595 * np.log10(1 + RATE / 2 / 700)) * (bins + 1) - 1
    assert abs(found[0].mean(axis=0).argmax() - place) <= 1
    assert 8 < found.max() < 10, "full scale"


def test_silence_is_the_floor() -> None:
    assert np.allclose(log_mel(np.zeros((1, samples_of(4)), np.float32), 4, 32), np.log(1e-6))


def test_few_numbers_a_frame_are_cepstra_of_forty_bands() -> None:
    assert has_cepstra(13) and not has_cepstra(32)
    powers = log_mel(voices(np.random.default_rng(0), 2, samples_of(9)), 9, 13)
    found = cepstra(powers, 13)
    assert powers.shape == (2, 9, 40) and found.shape == (2, 9, 13)
    assert np.allclose(found[..., 0], powers.sum(axis=2) / np.sqrt(40), rtol=1e-4)
    whole = cepstra(powers, 40)
    assert np.allclose((whole**2).sum(), (powers**2).sum(), rtol=1e-4), "the transform is orthonormal"


@pytest.mark.parametrize("bins", [10, 32, 64, 80, 128])
def test_no_band_is_always_silent(bins: int) -> None:
    noise = np.random.default_rng(0).standard_normal((1, samples_of(20))).astype(np.float32)
    assert log_mel(noise, 20, bins).min() > np.log(1e-3)
