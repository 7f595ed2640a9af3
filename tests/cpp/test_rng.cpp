#include <doctest/doctest.h>

#include <array>
#include <cmath>

#include "rng.hpp"

using onnxfold::Rng;

TEST_CASE("the same seed gives the same numbers on every platform") {
  Rng rng(1, 2);
  const std::array<std::uint64_t, 3> drawn = {rng.next(), rng.next(), rng.next()};
  CHECK(drawn == std::array<std::uint64_t, 3>{0x3ba0b11c56af943cULL, 0x560d9c5c6df69d89ULL, 0x11c8ba5f82432151ULL});
}

TEST_CASE("seeds and streams differ") {
  CHECK(Rng(1, 0).next() != Rng(2, 0).next());
  CHECK(Rng(1, 0).next() != Rng(1, 1).next());
  CHECK(Rng(0, 1).next() != Rng(1, 0).next());
}

TEST_CASE("bounded integers are uniform and never reach the bound") {
  constexpr std::size_t kBound = 7;
  constexpr int kDraws = 70000;
  constexpr double kFiveSigma = 5.0 * 93.0;  // sqrt(70000 * 1/7 * 6/7) = 92.6
  Rng rng(3, 0);
  std::array<int, kBound> counts{};
  for (int draw = 0; draw < kDraws; ++draw) {
    const std::size_t value = rng.below(kBound);
    REQUIRE(value < kBound);
    ++counts[value];
  }
  for (const int count : counts) CHECK(std::abs(count - 10000.0) < kFiveSigma);
  CHECK(rng.below(1) == 0);
}

TEST_CASE("unit reals lie in [0, 1) around one half") {
  constexpr int kDraws = 10000;
  constexpr double kFiveSigma = 5.0 * 0.0029;  // sqrt(1/12 / 10000)
  Rng rng(4, 0);
  double total = 0.0;
  for (int draw = 0; draw < kDraws; ++draw) {
    const double value = rng.unit();
    REQUIRE(value >= 0.0);
    REQUIRE(value < 1.0);
    total += value;
  }
  CHECK(std::abs(total / kDraws - 0.5) < kFiveSigma);
}
