// Sorting keys in shared memory by comparing them: each warp sorts a run in registers, by a bitonic network, then runs are merged two by two, each
// thread finding by bisection where its keys begin. In global memory the same, a piece of shared memory at a time.
#pragma once
#include "sort_memory.h"

namespace gaf::cuda {

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

}  // namespace gaf::cuda
