// Sorting whole arrays: CUB on a GPU, a host loop in the emulator. Nothing here waits for the GPU, so all may be captured in a graph.
//
// Two calls each, as CUB does it: with temp = null only `temp_bytes` is set (nothing is read, pointers may be null); then the work is enqueued.
// The size depends on n alone. `sort_pairs(name, ..., stream)` without temp takes its memory from stream.memory.
#pragma once
#include <cstdint>

#include "launch.h"

namespace gaf::cuda {

// A stable sort of n pairs by bits [0, bits) of their keys; 0 < bits <= 32. Inputs are left as they are and must not overlap the outputs.
struct SortPairs {
  const uint32_t* keys_in;    // [n]
  uint32_t* keys_out;         // [n]
  const uint32_t* values_in;  // [n]
  uint32_t* values_out;       // [n]
  int64_t n;                  // < 2^31
  int bits;
};
void sort_pairs(const char* name, void* temp, size_t& temp_bytes, const SortPairs& a, Stream stream);

inline void sort_pairs(const char* name, const SortPairs& a, Stream stream) {
  size_t temp_bytes = 0;
  sort_pairs(name, nullptr, temp_bytes, a, stream);
  sort_pairs(name, stream.memory->bytes(temp_bytes), temp_bytes, a, stream);
}

// Bits that hold every number below n; at least 1.
inline int bits_for(int64_t n) {
  int bits = 1;
  while (bits < 63 && (int64_t(1) << bits) < n) ++bits;
  return bits;
}

}  // namespace gaf::cuda
