// Sorting lists of 64-bit keys, a block a list. Each warp sorts a run in registers, then runs are merged two by two: in shared memory while the
// list fits there, and in global memory, a piece of shared memory at a time, where it does not. Equal keys are the same key, so that whatever
// order the list comes in, and whoever comes first, it ends as the same bits.
//
// Cost: n log n at every length. By counting, a few hundred keys take two microseconds, 2048 some five, 100,000 some 700: there is one block.
//
//     GAF_SHARED(SortMemory, memory);
//     sort_keys(memory, n, [&](int i) { return given[i]; }, SortRoom{a, b}, [&](int i, uint64_t key) { sorted[i] = key; });
#pragma once
#include "reduce.h"

namespace gaf::cuda {

constexpr int kSortThreads = kThreads;       // of the block
constexpr int kSortMost = 4 * kSortThreads;  // keys in shared memory, which is there twice: blocks of 20 KiB leave room for as many as registers do
constexpr int kSortBanks = 16;               // of keys; after as many one is left out, so that threads several keys apart meet different banks
constexpr uint64_t kLastKey = ~uint64_t(0);  // behind every other

struct SortMemory {
  uint64_t keys[2][kSortMost + kSortMost / kSortBanks];
  int splits[kSortThreads];
};

// Global memory for lists of more than kSortMost keys: both of the list's length.
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

// Writes the keys from `first` on, up to `end`, of two runs merged.
__device__ __forceinline__ void merge_keys(const SharedKeys& a, int n_a, const SharedKeys& b, int n_b, int first, int end, const SharedKeys& out) {
  int i = merge_split(a, n_a, b, n_b, first), j = first - i;
  uint64_t x = i < n_a ? a[i] : kLastKey, y = j < n_b ? b[j] : kLastKey;
  for (int at = first; at < end; ++at) {
    if (x <= y) {
      out[at] = x;
      ++i;
      x = i < n_a ? a[i] : kLastKey;
    } else {
      out[at] = y;
      ++j;
      y = j < n_b ? b[j] : kLastKey;
    }
  }
}

// The keys of a block in shared memory, and as much memory for what is made of them.
struct SharedLists {
  SharedKeys keys, other;

  __device__ __forceinline__ explicit SharedLists(SortMemory& memory) : keys{memory.keys[0], 0}, other{memory.keys[1], 0} {}

  // When all threads have written to `other`. All threads of the block must call.
  __device__ __forceinline__ void swap() {
    const SharedKeys written = other;
    other = keys;
    keys = written;
    __syncthreads();
  }
};

// Sorts n <= K kSortThreads keys. All threads of the block must call.
template <int K>
__device__ __forceinline__ void sort_shared(SharedLists& lists, int n) {
  const int first = int(threadIdx.x) * K;
  if (warp_index() * kWarp * K < n) {
    uint64_t keys[K];
#pragma unroll
    for (int k = 0; k < K; ++k) keys[k] = first + k < n ? lists.keys[first + k] : kLastKey;
    sort_warp(keys);
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (first + k < n) lists.other[first + k] = keys[k];
    }
  }
  lists.swap();
  for (int run = kWarp * K; run < n; run *= 2) {
    if (first < n) {
      const int base = first / (2 * run) * (2 * run), n_a = min(run, n - base), n_b = min(run, n - base - n_a), begin = first - base;
      merge_keys(lists.keys.from(base), n_a, lists.keys.from(base + n_a), n_b, begin, min(begin + K, n_a + n_b), lists.other.from(base));
    }
    lists.swap();
  }
}

// A piece of kSortMost keys of runs merged two by two: n_a keys from `a` on and n_b keys from `b` on.
struct MergePiece {
  int a, n_a, b, n_b;
};

// Where the pieces from `piece` on begin in the first of their runs: of as many as there are threads.
__device__ __forceinline__ void find_splits(const uint64_t* keys, int n, int run, int piece, int* splits) {
  const int64_t first = int64_t(piece + int(threadIdx.x)) * kSortMost;
  __syncthreads();
  if (first < n) {
    const int base = int(first / (2 * int64_t(run)) * (2 * int64_t(run))), n_a = min(run, n - base), n_b = min(run, n - base - n_a);
    splits[threadIdx.x] = merge_split(keys + base, n_a, keys + base + n_a, n_b, int(first) - base);
  }
  __syncthreads();
}

__device__ __forceinline__ MergePiece piece_at(int n, int run, int first, const int* split) {
  const int base = int(first / (2 * int64_t(run)) * (2 * int64_t(run))), n_a = min(run, n - base), n_b = min(run, n - base - n_a);
  const int begin = first - base, end = min(begin + kSortMost, n_a + n_b);
  const int i = split[0], i_end = end == n_a + n_b ? n_a : split[1];
  return {base + i, i_end - i, base + n_a + (begin - i), end - begin - (i_end - i)};
}

// Merges runs of `run` keys into runs of twice as many. All threads of the block must call.
template <class Out>
__device__ __forceinline__ void merge_runs(SortMemory& memory, const uint64_t* keys, int n, int run, Out&& out) {
  constexpr int kPieces = kSortThreads - 1;  // a piece ends where the next begins
  const SharedLists lists(memory);
  const int n_pieces = (n - 1) / kSortMost + 1;
  for (int piece = 0; piece < n_pieces; ++piece) {
    if (piece % kPieces == 0) find_splits(keys, n, run, piece, memory.splits);
    const int first = piece * kSortMost;
    const MergePiece m = piece_at(n, run, first, memory.splits + piece % kPieces);
    const int count = m.n_a + m.n_b, begin = int(threadIdx.x) * (kSortMost / kSortThreads);
    for (int i = int(threadIdx.x); i < count; i += kSortThreads) lists.keys[i] = keys[i < m.n_a ? m.a + i : m.b + (i - m.n_a)];
    __syncthreads();
    const int end = min(begin + kSortMost / kSortThreads, count);
    if (begin < end) merge_keys(lists.keys, m.n_a, lists.keys.from(m.n_a), m.n_b, begin, end, lists.other);
    __syncthreads();
    for (int i = int(threadIdx.x); i < count; i += kSortThreads) out(first + i, lists.other[i]);
  }
}

// Calls out(i, key) for the keys in ascending order, where load(i), 0 <= i < n, gives them in any. `load` may read room.keys. All threads of a
// block of kSortThreads must call, with the same arguments.
template <class Load, class Out>
__device__ __forceinline__ void sort_keys(SortMemory& memory, int n, Load&& load, SortRoom room, Out&& out) {
  SharedLists lists(memory);
  const bool fits = n <= kSortMost;
  for (int64_t first = 0; first < n; first += kSortMost) {
    const int count = int(min(int64_t(n) - first, int64_t(kSortMost)));
    for (int i = int(threadIdx.x); i < count; i += kSortThreads) lists.keys[i] = load(int(first) + i);
    __syncthreads();
    if (count <= kSortMost / 2) {  // fewer keys a thread need fewer steps in registers, and more warps take part
      sort_shared<kSortMost / kSortThreads / 2>(lists, count);
    } else {
      sort_shared<kSortMost / kSortThreads>(lists, count);
    }
    for (int i = int(threadIdx.x); i < count; i += kSortThreads) {
      if (fits) {
        out(i, lists.keys[i]);
      } else {
        room.more[first + i] = lists.keys[i];
      }
    }
    __syncthreads();
  }
  for (int64_t run = kSortMost; run < n; run *= 2) {
    const bool last = 2 * run >= n;
    merge_runs(memory, room.more, n, int(run), [&](int i, uint64_t key) {
      if (last) {
        out(i, key);
      } else {
        room.keys[i] = key;
      }
    });
    __syncthreads();
    uint64_t* merged = room.keys;
    room.keys = room.more;
    room.more = merged;
  }
}

}  // namespace gaf::cuda
