// Sums over a warp or a block, in an order that depends on the lanes only: the same bits every time.
#pragma once
#include "launch.h"

namespace gaf::cuda {

constexpr int kWarp = 32;
constexpr unsigned kFullMask = 0xffffffffu;

__device__ __forceinline__ int lane_index() { return int(threadIdx.x % kWarp); }
__device__ __forceinline__ int warp_index() { return int(threadIdx.x / kWarp); }

// All `threads` threads of a block, a multiple of 32, wait for each other, also from different places in the code, where __syncthreads()
// is not allowed. Not the barrier that __syncthreads() uses.
__device__ __forceinline__ void meet_block(int threads) {
#if defined(GAF_SIMT)
  (void)threads;
  __syncthreads();
#else
  asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory");
#endif
}

// Every lane gets the result. All 32 lanes must call.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kFullMask, value, offset);
  return value;
}

// Sum of the lanes before and including this one.
template <class T>
__device__ __forceinline__ T warp_inclusive_sum(T value) {
  const int lane = lane_index();
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const T other = __shfl_up_sync(kFullMask, value, offset);
    if (lane >= offset) value += other;
  }
  return value;
}

// Thread 0 gets the sum, the others a part of it. One-dimensional blocks, a multiple of 32 threads, at most 1024; all threads must call.
// `partial` is shared memory of 32 numbers; a barrier must lie between two uses of the same memory.
template <class T>
__device__ __forceinline__ T block_sum(T value, T* partial) {
  value = warp_sum(value);
  if (lane_index() == 0) partial[warp_index()] = value;
  __syncthreads();
  const int n_warps = int(blockDim.x) / kWarp;
  if (warp_index() == 0) value = warp_sum(lane_index() < n_warps ? partial[lane_index()] : T(0));
  return value;
}

}  // namespace gaf::cuda
