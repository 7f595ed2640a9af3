"""Random numbers that are the same on every platform: xoshiro256** (Blackman and Vigna), seeded through splitmix64."""

from __future__ import annotations

_MASK = 2**64 - 1


class Rng:
    """Every (seed, stream) pair gives its own sequence."""

    def __init__(self, seed: int, stream: int) -> None:
        mixer, mixed = _split_mix(seed)
        mixer = mixed ^ (stream * 0x9E3779B97F4A7C15 & _MASK)
        self._state = [0, 0, 0, 0]
        for word in range(4):
            mixer, self._state[word] = _split_mix(mixer)

    def next(self) -> int:
        """64 random bits."""
        s = self._state
        result = _rotated(s[1] * 5 & _MASK, 7) * 9 & _MASK
        shifted = s[1] << 17 & _MASK
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= shifted
        s[3] = _rotated(s[3], 45)
        return result

    def below(self, bound: int) -> int:
        """Uniform in [0, bound), bound >= 1; unbiased: the incomplete last cycle is rejected."""
        rejected = (2**64 - bound) % bound
        draw = self.next()
        while draw < rejected:
            draw = self.next()
        return draw % bound

    def unit(self) -> float:
        """Uniform in [0, 1) with 53 random bits."""
        return (self.next() >> 11) * 2.0**-53


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def _split_mix(state: int) -> tuple[int, int]:
    """OUT: the next state, and what is drawn."""
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    mixed = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
    return state, mixed ^ mixed >> 31
