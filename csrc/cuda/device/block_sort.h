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

// Global memory for lists that do not fit: both of the list's length.
struct SortRoom {
  uint64_t *keys, *more;
};

// Keys in shared memory from `first` on.
struct SharedKeys {
  uint64_t* memory;
  int first;

  __device__ __forceinline__ uint64_t& operator[](int i) const { return memory[first + i + (first + i) / kSortBanks]; }
  __device__ __forceinline__ SharedKeys from(int i) const { return {memory, first + i}; }
};

__device__ __forceinline__ void put_in_order(uint64_t& a, uint64_t& b, bool rises) {
  const bool swap = (b < a) == rises;
  const uint64_t first = swap ? b : a, second = swap ? a : b;
  a = first;
  b = second;
}

// Sorts the 32 K keys of a warp, of which each lane has K that follow each other: the bitonic network. All 32 lanes must call.
template <int K>
__device__ __forceinline__ void sort_warp(uint64_t (&keys)[K]) {
  const int lane = lane_index();
#pragma unroll
  for (int size = 2; size < K; size *= 2) {
#pragma unroll
    for (int stride = size / 2; stride > 0; stride /= 2) {
#pragma unroll
      for (int i = 0; i < K; ++i) {
        if ((i & stride) == 0) put_in_order(keys[i], keys[i + stride], (i & size) == 0);
      }
    }
  }
#pragma unroll 1
  for (int lanes = 1; lanes <= kWarp; lanes *= 2) {  // whose keys are a run after this round
    const bool rises = (lane & lanes) == 0;
#pragma unroll 1
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
      const bool low = ((lane & distance) == 0) == rises;
#pragma unroll
      for (int i = 0; i < K; ++i) {
        const uint64_t other = __shfl_xor_sync(kFullMask, keys[i], distance);
        keys[i] = (other < keys[i]) == low ? other : keys[i];
      }
    }
#pragma unroll
    for (int stride = K / 2; stride > 0; stride /= 2) {
#pragma unroll
      for (int i = 0; i < K; ++i) {
        if ((i & stride) == 0) put_in_order(keys[i], keys[i + stride], rises);
      }
    }
  }
}

// How many of the first n keys of two merged runs are the first run's; of equal keys the first run's come first.
template <class Keys>
__device__ __forceinline__ int merge_split(const Keys& a, int n_a, const Keys& b, int n_b, int n) {
  int low = n > n_b ? n - n_b : 0, high = n < n_a ? n : n_a;
  while (low < high) {
    const int middle = low + (high - low) / 2;
    if (a[middle] <= b[n - 1 - middle]) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// The K keys from `first` on of two runs merged; behind the last kLastKey.
template <int K>
__device__ __forceinline__ void merge_keys(const SharedKeys& a, int n_a, const SharedKeys& b, int n_b, int first, uint64_t (&out)[K]) {
  int i = merge_split(a, n_a, b, n_b, first), j = first - i;
  uint64_t x = i < n_a ? a[i] : kLastKey, y = j < n_b ? b[j] : kLastKey;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    if (x <= y) {
      out[k] = x;
      ++i;
      x = i < n_a ? a[i] : kLastKey;
    } else {
      out[k] = y;
      ++j;
      y = j < n_b ? b[j] : kLastKey;
    }
  }
}

template <int K>
__device__ __forceinline__ void store_keys(const uint64_t (&keys)[K], const SharedKeys& out, int first, int end) {
#pragma unroll
  for (int k = 0; k < K; ++k) {
    if (first + k < end) out[first + k] = keys[k];
  }
}

// Sorts as many keys as K a thread, in place. All threads of the block must call.
template <int K>
__device__ __forceinline__ void sort_shared(const SharedKeys& list, int n) {
  const int first = int(threadIdx.x) * K;
  uint64_t keys[K];
  if (warp_index() * kWarp * K < n) {
#pragma unroll
    for (int k = 0; k < K; ++k) keys[k] = first + k < n ? list[first + k] : kLastKey;
    sort_warp(keys);
    store_keys(keys, list, first, n);
  }
  __syncthreads();
  for (int run = kWarp * K; run < n; run *= 2) {
    const int base = first / (2 * run) * (2 * run), n_a = min(run, n - base), n_b = min(run, n - base - n_a);
    uint64_t merged[K] = {};
    if (first < n) merge_keys(list.from(base), n_a, list.from(base + n_a), n_b, first - base, merged);
    __syncthreads();  // what is merged has been read
    store_keys(merged, list, first, n);
    __syncthreads();
  }
}

// A piece of shared memory's size of runs merged two by two: n_a keys from `a` on and n_b keys from `b` on.
struct MergePiece {
  int a, n_a, b, n_b;
};

// Where the pieces of `most` keys from `piece` on begin in the first of their runs: of as many as there are threads.
__device__ __forceinline__ void find_splits(const uint64_t* keys, int n, int run, int piece, int most, int* splits) {
  const int64_t first = int64_t(piece + int(threadIdx.x)) * most;
  __syncthreads();
  if (first < n) {
    const int base = int(first / (2 * int64_t(run)) * (2 * int64_t(run))), n_a = min(run, n - base), n_b = min(run, n - base - n_a);
    splits[threadIdx.x] = merge_split(keys + base, n_a, keys + base + n_a, n_b, int(first) - base);
  }
  __syncthreads();
}

__device__ __forceinline__ MergePiece piece_at(int n, int run, int first, int most, const int* split) {
  const int base = int(first / (2 * int64_t(run)) * (2 * int64_t(run))), n_a = min(run, n - base), n_b = min(run, n - base - n_a);
  const int begin = first - base, end = min(begin + most, n_a + n_b);
  const int i = split[0], i_end = end == n_a + n_b ? n_a : split[1];
  return {base + i, i_end - i, base + n_a + (begin - i), end - begin - (i_end - i)};
}

// Calls out(places, keys) for n keys in order: thread by thread kSortKeys at a time, those without a key with a place of -1.
template <int kBlock, class Out>
__device__ __forceinline__ void hand_out(const SharedKeys& list, int n, Out&& out) {
#pragma unroll 1
  for (int base = int(threadIdx.x); base < n; base += kSortKeys * kBlock) {
    int places[kSortKeys];
    uint64_t keys[kSortKeys];
#pragma unroll
    for (int k = 0; k < kSortKeys; ++k) {
      const int i = base + k * kBlock;
      places[k] = i < n ? i : -1;
      keys[k] = i < n ? list[i] : kLastKey;
    }
    out(places, keys);
  }
}

// Merges runs of `run` keys into runs of twice as many. All threads of the block must call.
template <int kBlock, class Out>
__device__ __forceinline__ void merge_runs(SortMemory<kBlock>& memory, const uint64_t* keys, int n, int run, Out&& out) {
  constexpr int kMost = kSortMost<kBlock>, kPieces = kBlock - 1;  // a piece ends where the next begins
  const SharedKeys list = {memory.keys, 0};
  const int n_pieces = (n - 1) / kMost + 1;
  for (int piece = 0; piece < n_pieces; ++piece) {
    if (piece % kPieces == 0) find_splits(keys, n, run, piece, kMost, memory.bins);
    const int first = piece * kMost;
    const MergePiece m = piece_at(n, run, first, kMost, memory.bins + piece % kPieces);
    const int count = m.n_a + m.n_b, begin = int(threadIdx.x) * kSortKeys;
    for (int i = int(threadIdx.x); i < count; i += kBlock) list[i] = keys[i < m.n_a ? m.a + i : m.b + (i - m.n_a)];
    __syncthreads();
    uint64_t mine[kSortKeys] = {};
    if (begin < count) merge_keys(list, m.n_a, list.from(m.n_a), m.n_b, begin, mine);
    __syncthreads();
    store_keys(mine, list, begin, count);
    __syncthreads();
    hand_out<kBlock>(list, count, [&](const auto& places, const auto& sorted) { out(first, places, sorted); });
    __syncthreads();
  }
}

// Up to kFewKeys keys, one a thread: each counts those before it. All threads of the block must call.
template <class Out>
__device__ __forceinline__ void sort_few(uint64_t* list, uint64_t key, int n, Out&& out) {
  constexpr int kStep = 4;
  static_assert(kFewKeys % kStep == 0);
  if (int(threadIdx.x) < kFewKeys) list[threadIdx.x] = key;  // kLastKey from n on
  __syncthreads();
  if (int(threadIdx.x) >= n) return;
  int places[1] = {0};
#pragma unroll 1
  for (int i = 0; i < n; i += kStep) {
#pragma unroll
    for (int k = 0; k < kStep; ++k) places[0] += list[i + k] < key;
  }
  const uint64_t keys[1] = {key};
  out(places, keys);
}

// Bins of equal width between the lowest and the highest upper half, which for depths are as wide as they are far. A bin never lies before that
// of a lower key: conversion, product and cut rise with their argument, however they are rounded.
struct KeyBins {
  uint32_t low;
  float scale;
  float last;

  __device__ __forceinline__ int operator()(uint64_t key) const {
    const float x = float(uint32_t(key >> 32) - low) * scale;
    return int(x < last ? x : last);
  }
};

// All threads of the block must call.
template <int kBlock>
__device__ __forceinline__ KeyBins find_bins(SortMemory<kBlock>& memory, const uint64_t (&keys)[kBinKeys], int n, int mine) {
  constexpr int kWarps = kBlock / kWarp;
  uint32_t low = ~uint32_t(0), high = 0;
#pragma unroll
  for (int done = 0; done < kBinKeys; done += kBinAtOnce) {
    if (done > 0 && done * kBlock >= n) break;
#pragma unroll
    for (int k = done; k < done + kBinAtOnce; ++k) {
      if (k < mine) low = min(low, uint32_t(keys[k] >> 32)), high = max(high, uint32_t(keys[k] >> 32));
    }
  }
  low = __reduce_min_sync(kFullMask, low);
  high = __reduce_max_sync(kFullMask, high);
  if (lane_index() == 0) memory.low[warp_index()] = low, memory.high[warp_index()] = high;
  __syncthreads();
  low = __reduce_min_sync(kFullMask, lane_index() < kWarps ? memory.low[lane_index()] : ~uint32_t(0));
  high = __reduce_max_sync(kFullMask, lane_index() < kWarps ? memory.high[lane_index()] : 0u);
  constexpr float kBins = float(kSortBins<kBlock>);
  return {low, __fdividef(kBins, float(high - low) + 1), kBins - 1};
}

// Makes the numbers of keys in bins their first places. True where a bin is too full. All threads of the block must call.
template <int kBlock>
__device__ __forceinline__ bool number_bins(SortMemory<kBlock>& memory, int n) {
  static_assert(kSortBins<kBlock> == 4 * kBlock);
  int4* const mine = reinterpret_cast<int4*>(memory.bins) + threadIdx.x;
  const int4 count = *mine;
  const int own = count.x + count.y + count.z + count.w, upto = warp_inclusive_sum(own);
  if (lane_index() == kWarp - 1) memory.sums[warp_index()] = upto;
  if (__syncthreads_or(max(max(count.x, count.y), max(count.z, count.w)) > kFullBin)) return true;
  const int first = __reduce_add_sync(kFullMask, lane_index() < warp_index() ? memory.sums[lane_index()] : 0) + upto - own;
  *mine = {first, first + count.x, first + count.x + count.y, first + count.x + count.y + count.z};
  if (threadIdx.x == 0) memory.bins[kSortBins<kBlock>] = n;
  __syncthreads();
  return false;
}

// How many of n keys thread i has, when its k-th is key i + k kBlock. Compared with k, it takes one register; the keys' numbers would take eight.
template <int kBlock>
__device__ __forceinline__ int keys_of_thread(int n) {
  return (n - int(threadIdx.x) + kBlock - 1) / kBlock;
}

// Sorts the n keys that threads have in registers, key i + k kBlock the k-th of thread i. False where a bin is too full: then nothing was given to
// `out`. All threads of the block must call.
template <int kBlock, class Out>
__device__ __forceinline__ bool sort_by_bins(SortMemory<kBlock>& memory, const uint64_t (&keys)[kBinKeys], int n, Out&& out) {
  static_assert(kBinMost<kBlock> <= 1 << 16 && kSortBins<kBlock> <= 1 << 16);
  const int mine = keys_of_thread<kBlock>(n);
  reinterpret_cast<int4*>(memory.bins)[threadIdx.x] = {0, 0, 0, 0};
  const KeyBins bin_of = find_bins(memory, keys, n, mine);
  uint32_t at[kBinKeys];  // bin, and above it the number in the bin
#pragma unroll
  for (int done = 0; done < kBinKeys; done += kBinAtOnce) {
    if (done > 0 && done * kBlock >= n) break;
#pragma unroll
    for (int k = done; k < done + kBinAtOnce; ++k) at[k] = k < mine ? uint32_t(bin_of(keys[k])) : threadIdx.x;
#pragma unroll
    for (int k = done; k < done + kBinAtOnce; ++k) {  // without a branch, in which each would be waited for
      at[k] |= uint32_t(atomicAdd(&memory.bins[at[k]], k < mine ? 1 : 0)) << 16;
    }
  }
  __syncthreads();
  if (number_bins(memory, n)) return false;
#pragma unroll
  for (int done = 0; done < kBinKeys; done += kBinAtOnce) {
    if (done > 0 && done * kBlock >= n) break;
    int place[kBinAtOnce];
#pragma unroll
    for (int k = 0; k < kBinAtOnce; ++k) place[k] = memory.bins[at[done + k] & 0xffff] + int(at[done + k] >> 16);
#pragma unroll
    for (int k = 0; k < kBinAtOnce; ++k) {
      if (done + k < mine) memory.keys[place[k]] = keys[done + k];
    }
  }
  if (int(threadIdx.x) < kFullBin) memory.keys[n + int(threadIdx.x)] = kLastKey;
  __syncthreads();
#pragma unroll 1
  for (int done = 0; done < mine; done += kBinAtOnce) {
    const uint64_t* const given = memory.keys + int(threadIdx.x) + done * kBlock;
    const uint64_t* members[kBinAtOnce];
    int places[kBinAtOnce], most = 0;
    uint64_t key[kBinAtOnce];
#pragma unroll
    for (int k = 0; k < kBinAtOnce; ++k) key[k] = done + k < mine ? given[k * kBlock] : kLastKey;
#pragma unroll
    for (int k = 0; k < kBinAtOnce; ++k) {
      const int bin = bin_of(key[k]), begin = memory.bins[bin], count = memory.bins[bin + 1] - begin;
      members[k] = memory.keys + begin;
      places[k] = begin;
      most = max(most, done + k < mine ? count : 0);
    }
#pragma unroll 2
    for (int i = 0; i < most; ++i) {  // what follows a bin, of this list or kLastKey, is not lower
#pragma unroll
      for (int k = 0; k < kBinAtOnce; ++k) places[k] += members[k][i] < key[k];
    }
#pragma unroll
    for (int k = 0; k < kBinAtOnce; ++k) {
      if (done + k >= mine) places[k] = -1;
    }
    out(places, key);
  }
  return true;
}

// Sorts the n keys load(i), at most kBinMost, unless a bin is too full: false, and nothing was given to `out`. All threads of the block must call.
template <int kBlock, class Load, class Out>
__device__ __forceinline__ bool try_bins(SortMemory<kBlock>& memory, int n, Load&& load, Out&& out) {
  const int mine = keys_of_thread<kBlock>(n);
  uint64_t keys[kBinKeys];
#pragma unroll
  for (int done = 0; done < kBinKeys; done += kBinAtOnce) {
    if (done > 0 && done * kBlock >= n) break;
#pragma unroll
    for (int k = done; k < done + kBinAtOnce; ++k) keys[k] = k < mine ? load(int(threadIdx.x) + k * kBlock) : kLastKey;
  }
  bool sorted = true;
  if (n <= kFewKeys) {
    sort_few(memory.keys, keys[0], n, out);
  } else {
    sorted = sort_by_bins(memory, keys, n, out);
  }
  __syncthreads();
  return sorted;
}

// Sorts the n keys load(i), at most kSortMost. All threads of the block must call.
template <int kBlock, class Load, class Out>
__device__ __forceinline__ void sort_by_merging(SortMemory<kBlock>& memory, int n, Load&& load, Out&& out) {
  const SharedKeys list = {memory.keys, 0};
  for (int i = int(threadIdx.x); i < n; i += kBlock) list[i] = load(i);
  __syncthreads();
  if (n <= kSortMost<kBlock> / 2) {  // fewer keys a thread need fewer steps in registers, and more warps take part
    sort_shared<kSortKeys / 2>(list, n);
  } else {
    sort_shared<kSortKeys>(list, n);
  }
  hand_out<kBlock>(list, n, out);
  __syncthreads();
}

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
