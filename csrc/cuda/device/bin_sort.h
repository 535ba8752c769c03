// Sorting keys in shared memory by bins of their upper half: an atomic addition numbers a key in its bin, a prefix sum gives bins their places, and
// each key counts those before it in its bin. Steps whose number does not grow with the list, unless a bin is too full.
#pragma once
#include "sort_memory.h"

namespace gaf::cuda {

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

}  // namespace gaf::cuda
