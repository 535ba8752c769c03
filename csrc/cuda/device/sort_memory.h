// Shared memory of a block that sorts, by bins (bin_sort.h) or by merging (merge_sort.h).
#pragma once
#include "reduce.h"

namespace gaf::cuda {

constexpr int kBinKeys = 8;     // of a thread that sorts by bins
constexpr int kBinAtOnce = 2;   // of these: what it looks up together, so that it waits once; a block skips what nobody has
constexpr int kSortKeys = 4;    // of a thread that merges
constexpr int kSortBanks = 16;  // of keys where runs are merged; after as many one is left out: threads several keys apart meet different banks
constexpr int kFewKeys = 64;    // that find their places without bins
constexpr int kFullBin = 128;   // keys: with more to compare each of them with, merging takes less time
constexpr uint64_t kLastKey = ~uint64_t(0);  // behind every other

template <int kBlock>
constexpr int kBinMost = kBinKeys * kBlock;  // keys in shared memory that are sorted by bins
template <int kBlock>
constexpr int kSortMost = kSortKeys * kBlock;  // and that are merged
template <int kBlock>
constexpr int kSortBins = 4 * kBlock;

template <int kBlock>
struct SortMemory {
  uint64_t keys[kBinMost<kBlock> + kFullBin];   // behind those of bins come last keys, so that a thread may look past its bin
  alignas(16) int bins[kSortBins<kBlock> + 4];  // how many keys each has, then where it begins; while runs are merged, where pieces do
  uint32_t low[kWarp], high[kWarp];             // of a warp
  int sums[kWarp];
  static_assert(kSortMost<kBlock> + kSortMost<kBlock> / kSortBanks <= kBinMost<kBlock>);
};

}  // namespace gaf::cuda
