"""Sounds made by formulas, in place of recordings: one kind to repair with, another to judge by.

Repairs take something like speech: syllables of a voice through the resonances of a vocal tract (the source-filter
model: Fant, Acoustic Theory of Speech Production, 1960), consonants of noise, pauses. Judging takes what is none of
these: chords of gliding, decaying tones, and knocks. Both have noise behind them, and any loudness.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Wave = NDArray[np.float64]
RATE = 16_000  # samples per second: what most models of speech and of events take
_LOUDNESS = (-40.0, -12.0)  # dB of full scale
_ABOVE = (5.0, 45.0)  # dB that a sound is above the noise behind it
_LOW = 50.0  # Hz: noise gets no louder below
_SYLLABLE, _PAUSE = (0.06, 0.28), (0.1, 0.4)  # seconds
_CONSONANT, _VOWEL, _REST = 0.25, 0.8, 0.1  # chances: of a consonant, of that or a vowel, of a pause after any
_PITCH = (80.0, 300.0)  # Hz, of voices
_SIZE = (0.85, 1.2)  # of a vocal tract: resonances are at so many times the usual frequency
_FORMANTS = ((250.0, 900.0), (800.0, 2500.0), (2200.0, 3500.0), (3300.0, 4500.0))  # Hz: where vowels have them
_WIDTHS = np.array([60.0, 90.0, 150.0, 250.0])  # Hz, of these resonances
_HISS = (1500.0, 7000.0)  # Hz, the middle of a consonant
_NOTE, _CHORD = (100.0, 2000.0), 3  # Hz; tones at once at most
_HARMONICS = 30  # of a tone at most
_KNOCK = 0.3  # of all notes


def voices(rng: np.random.Generator, count: int, length: int) -> Floats:
    """[count, length] samples at `RATE`, from -1 to 1, of sounds like speech."""
    return _recorded(rng, count, length, _speech)


def tones(rng: np.random.Generator, count: int, length: int) -> Floats:
    """[count, length] samples at `RATE`, from -1 to 1, of chords and knocks."""
    return _recorded(rng, count, length, _notes)


def _recorded(
    rng: np.random.Generator, count: int, length: int, source: Callable[[np.random.Generator, int], Wave]
) -> Floats:
    """As loud as recordings are, with noise behind."""
    made = np.empty((count, length), np.float32)
    for row in made:
        sound = _unit(source(rng, length))
        sound += _noise(rng, length, rng.uniform(0, 1)) * 10 ** (-rng.uniform(*_ABOVE) / 20)
        row[:] = np.clip(sound * 10 ** (rng.uniform(*_LOUDNESS) / 20), -1, 1)
    return made


def _speech(rng: np.random.Generator, length: int) -> Wave:
    """Syllables and pauses of one voice, whose pitch wanders."""
    whole = np.zeros(length)
    size, pitch = rng.uniform(*_SIZE), rng.uniform(*_PITCH)
    at = -int(rng.uniform(0, _SYLLABLE[0]) * RATE)
    while at < length:
        here, kind = int(rng.uniform(*_SYLLABLE) * RATE), rng.random()
        if kind < _VOWEL:
            piece = _consonant(rng, here) if kind < _CONSONANT else _vowel(rng, here, pitch, size)
            _add(whole, piece * np.sqrt(np.hanning(here)), at)
        at += int(here * rng.uniform(0.7, 1.0))
        if rng.random() < _REST:
            at += int(rng.uniform(*_PAUSE) * RATE)
    return whole


def _vowel(rng: np.random.Generator, length: int, pitch: float, size: float) -> Wave:
    """The harmonics of a gliding pitch, each as loud as the resonances let it be, which change on the way."""
    glide = 1 + rng.uniform(-0.2, 0.2) * np.linspace(0, 1, length)
    frequency = pitch * rng.uniform(0.8, 1.3) * glide
    count = max(1, int(RATE / 2 / frequency.max()))
    gains = []
    for f in (frequency[0], frequency[-1]):
        formants = np.array([rng.uniform(*band) for band in _FORMANTS]) * size
        away = (f * np.arange(1, count + 1)[:, None] - formants) / _WIDTHS
        gains.append((1 / np.sqrt(1 + away**2)).sum(axis=1) / np.arange(1, count + 1))
    return _unit(_harmonics(frequency, *gains)) * rng.uniform(0.4, 1)


def _consonant(rng: np.random.Generator, length: int) -> Wave:
    """Noise in a band."""
    middle = rng.uniform(*_HISS)
    away = (np.fft.rfftfreq(length, 1 / RATE) - middle) / (middle * rng.uniform(0.2, 0.6))
    wave = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * np.exp(-0.5 * away**2), length)
    return _unit(wave) * rng.uniform(0.05, 0.4)


def _notes(rng: np.random.Generator, length: int) -> Wave:
    """Chords that decay, and knocks, over each other."""
    whole = np.zeros(length)
    at = -int(rng.uniform(0, 0.1) * RATE)
    while at < length:
        here = int(rng.uniform(0.1, 0.8) * RATE)
        piece = _knock(rng, here) if rng.random() < _KNOCK else _chord(rng, here)
        _add(whole, _unit(piece) * rng.uniform(0.2, 1), at)
        at += int(here * rng.uniform(0.3, 1.2))
    return whole


def _knock(rng: np.random.Generator, length: int) -> Wave:
    return _noise(rng, length, rng.uniform(0, 1)) * np.exp(-np.arange(length) / (RATE * rng.uniform(0.005, 0.05)))


def _chord(rng: np.random.Generator, length: int) -> Wave:
    time, tilt = np.arange(length) / RATE, rng.uniform(0.5, 2)
    piece = np.zeros(length)
    for _ in range(int(rng.integers(1, _CHORD + 1))):
        pitch = np.exp(rng.uniform(*np.log(_NOTE))) * (1 + rng.uniform(-0.5, 0.5) * time)
        count = max(1, min(_HARMONICS, int(RATE / 2 / pitch.max())))
        gains = rng.uniform(0.3, 1, count) / np.arange(1, count + 1) ** tilt
        piece += _harmonics(pitch, gains, gains)
    return np.asarray(piece * np.exp(-time / rng.uniform(0.05, 0.6)))


def _harmonics(frequency: Wave, begin: Wave, end: Wave) -> Wave:
    """The sum over k of sin(k phase), each with a gain that goes from `begin` to `end`; sines of multiples by
    Chebyshev's recurrence."""
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    at, twice = np.linspace(0, 1, len(phase)), 2 * np.cos(phase)
    last, sine, whole = np.zeros(len(phase)), np.sin(phase), np.zeros(len(phase))
    for first, final in zip(begin, end, strict=True):
        whole += (first + (final - first) * at) * sine
        last, sine = sine, twice * sine - last
    return whole


def _noise(rng: np.random.Generator, length: int, falls: float) -> Wave:
    """Noise of unit deviation whose amplitude goes with frequency to the power of -`falls`."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    return _unit(np.fft.irfft(spectrum * np.maximum(np.fft.rfftfreq(length, 1 / RATE), _LOW) ** -falls, length))


def _unit(wave: Wave) -> Wave:
    """`wave` with unit deviation, unless it is constant."""
    return wave / max(float(wave.std()), 1e-9)


def _add(whole: Wave, piece: Wave, at: int) -> None:
    """Add `piece` to `whole` from `at` on, as far as it lies inside."""
    begin, end = max(0, at), min(len(whole), at + len(piece))
    if begin < end:
        whole[begin:end] += piece[begin - at : end - at]
