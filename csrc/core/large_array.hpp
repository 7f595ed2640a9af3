// Memory for what grows with n^2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace onnxfold {

// Asks for pages of 2 MiB where the system has them: a walk down a column touches another page in every row.
inline void prefer_large_pages(void* begin, std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::size_t kWorthIt = std::size_t{8} << 20;
  if (bytes < kWorthIt) return;
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto first = (reinterpret_cast<std::uintptr_t>(begin) + page - 1) / page * page;
  const auto last = (reinterpret_cast<std::uintptr_t>(begin) + bytes) / page * page;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // a wish: failing changes nothing
#else
  static_cast<void>(begin);
  static_cast<void>(bytes);
#endif
}

// So many numbers, which mean nothing before they are written; what is never touched takes no memory.
template <typename Real>
std::unique_ptr<Real[]> large_array(std::size_t count) {
  std::unique_ptr<Real[]> made(new Real[count]);
  prefer_large_pages(made.get(), count * sizeof(Real));
  return made;
}

}  // namespace onnxfold
