// Random numbers that are the same on every platform: xoshiro256** (Blackman and Vigna), seeded through
// splitmix64. The standard library's distributions and shuffles differ between implementations.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace onnxfold {

class Rng {
 public:
  // Every (seed, stream) pair gives its own sequence.
  Rng(std::uint64_t seed, std::uint64_t stream) {
    std::uint64_t mixer = seed;
    mixer = split_mix(mixer) ^ (stream * 0x9e3779b97f4a7c15ULL);
    for (std::uint64_t& word : state_) word = split_mix(mixer);
  }

  std::uint64_t next() {
    const std::uint64_t result = rotate(state_[1] * 5, 7) * 9;
    const std::uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = rotate(state_[3], 45);
    return result;
  }

  // Uniform in [0, bound), bound >= 1; unbiased: the incomplete last cycle is rejected.
  std::size_t below(std::size_t bound) {
    const std::uint64_t range = bound;
    const std::uint64_t rejected = (0 - range) % range;
    std::uint64_t draw = next();
    while (draw < rejected) draw = next();
    return static_cast<std::size_t>(draw % range);
  }

  // Uniform in [0, 1) with 53 random bits.
  double unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

 private:
  static std::uint64_t rotate(std::uint64_t value, int bits) { return (value << bits) | (value >> (64 - bits)); }

  static std::uint64_t split_mix(std::uint64_t& state) {
    state += 0x9e3779b97f4a7c15ULL;
    std::uint64_t mixed = state;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
    return mixed ^ (mixed >> 31);
  }

  std::array<std::uint64_t, 4> state_{};
};

}  // namespace onnxfold
