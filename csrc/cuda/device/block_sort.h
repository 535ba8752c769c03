// Sorting lists of 64-bit keys, a block a list, no two keys equal. Keys are numbered by bins of their upper half, which for depths that are spread
// is a key or two a bin, and then find their place within the bin by counting: steps whose number does not grow with the list. Where a bin is
// too full, each warp sorts a run in registers, and runs are merged two by two. What does not fit into shared memory is sorted in pieces, which
// are merged in global memory, a piece of shared memory at a time. Whatever order the list comes in, and whoever comes first, it ends as the same
// bits.
//
// Cost: n, or n log n where a bin is too full, and the block's threads share it: long lists want large blocks, for there is one block.
//
//     GAF_SHARED(SortMemory<256>, memory);
//     sort_keys<256>(memory, n, [&](int i) { return given[i]; }, SortRoom{a, b}, [&]<int N>(const int (&places)[N], const uint64_t (&keys)[N]) {
//       for (int k = 0; k < N; ++k) {
//         if (places[k] >= 0) sorted[places[k]] = keys[k];
//       }
//     });
#pragma once
#include "bin_sort.h"
#include "merge_sort.h"

namespace gaf::cuda {

// Global memory for lists that do not fit: both of the list's length.
struct SortRoom {
  uint64_t *keys, *more;
};

// Calls out(places, keys), arrays of the same number, where places[k] is where keys[k] comes in ascending order, or -1 where there is none, until
// it has had all keys load(i), 0 <= i < n. `load` may read room.keys. All kBlock threads of a block must call, with the same arguments.
template <int kBlock, class Load, class Out>
__device__ __forceinline__ void sort_keys(SortMemory<kBlock>& memory, int n, Load&& load, SortRoom room, Out&& out) {
  uint32_t run = kBinMost<kBlock>;  // keys of a piece
  // A piece, or the list, where that is one piece; false where bins are too full.
  const auto sort_piece = [&](uint32_t first, auto&& sort) {
    const auto load_from = [&](int i) { return load(int(first) + i); };
    return sort(int(min(uint32_t(n) - first, run)), load_from, [&]<int N>(const int (&places)[N], const uint64_t (&sorted)[N]) {
      if (uint32_t(n) <= run) return out(places, sorted);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        if (places[k] >= 0) room.more[first + places[k]] = sorted[k];
      }
    });
  };
  bool sorted = true;
#pragma unroll 1
  for (uint32_t first = 0; first < uint32_t(n) && sorted; first += run) {
    sorted = sort_piece(first, [&](int count, auto&& from, auto&& put) { return try_bins(memory, count, from, put); });
  }
  if (!sorted) {
    run = kSortMost<kBlock>;
#pragma unroll 1
    for (uint32_t first = 0; first < uint32_t(n); first += run) {
      sort_piece(first, [&](int count, auto&& from, auto&& put) { sort_by_merging(memory, count, from, put); });
    }
  }
#pragma unroll 1
  for (; run < uint32_t(n); run *= 2) {
    const bool last = 2 * run >= uint32_t(n);
    merge_runs(memory, room.more, n, int(run), [&]<int N>(int first, const int (&places)[N], const uint64_t (&keys)[N]) {
      int at[N];
#pragma unroll
      for (int k = 0; k < N; ++k) at[k] = places[k] >= 0 ? first + places[k] : -1;
      if (last) return out(at, keys);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        if (at[k] >= 0) room.keys[at[k]] = keys[k];
      }
    });
    uint64_t* merged = room.keys;
    room.keys = room.more;
    room.more = merged;
  }
}

}  // namespace gaf::cuda
