// Kernels with mistakes, each of which the emulator must find, and their right twins, which it must let pass.
#include "planted.h"

#include <map>
#include <string>

#include "cuda/device/reduce.h"

namespace {

using gaf::cuda::kFullMask;
constexpr int kN = 64;  // threads a block

// Neighbours through shared memory; `barrier` is what must not be forgotten.
template <bool barrier>
__global__ void missing_barrier(float* out) {
  GAF_SHARED(float, values, [kN]);
  values[threadIdx.x] = float(threadIdx.x);
  if (barrier) __syncthreads();
  out[threadIdx.x] = values[(threadIdx.x + 1) % kN];
}

// Written again before everybody has read: only the second barrier makes it right.
template <bool barrier>
__global__ void write_after_read(float* out) {
  GAF_SHARED(float, values, [kN]);
  float sum = 0;
  for (int round = 0; round < 2; ++round) {
    values[threadIdx.x] = float(round);
    __syncthreads();
    sum += values[(threadIdx.x + 7) % kN];
    if (barrier) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

template <bool right>
__global__ void off_by_one_shared(float* out) {
  GAF_SHARED(float, before, [kN]);
  GAF_SHARED(float, values, [kN]);
  before[threadIdx.x] = 0;
  values[threadIdx.x + (right ? 0 : 1)] = 1;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x] + before[threadIdx.x];
}

template <bool right>
__global__ void divergent_barrier(float* out) {
  if (right || threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

template <bool right>
__global__ void early_exit(float* out) {
  if (!right && threadIdx.x == 5) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

template <bool right>
__global__ void wrong_mask(float* out) {
  float v = 1;
  if (right || threadIdx.x % 2 == 0) v = __shfl_xor_sync(kFullMask, v, 2);
  out[threadIdx.x] = v;
}

template <bool right>
__global__ void lane_not_in_mask(float* out) {
  float v = 1;
  if (threadIdx.x % 32 < 8) v = __shfl_sync(0xffu, v, right ? 7 : 9);
  out[threadIdx.x] = v;
}

template <bool right>
__global__ void divergent_vote(float* out) {
  int v = 0;
  if (right || threadIdx.x % 32 < 16) {
    v = __any_sync(kFullMask, 1);
  } else {
    v = __any_sync(kFullMask, 0);
  }
  out[threadIdx.x] = float(v);
}

template <bool right>
__global__ void unwritten_output(float* out) {
  if (right || threadIdx.x != 3) out[threadIdx.x] = 1;
}

template <bool right>
__global__ void outside(float* out) {
  out[threadIdx.x + (right ? 0 : 2)] = 1;
}

template <bool right>
__global__ void far_outside(float* out) {
  if (threadIdx.x == 0 && !right) out[5000] = 1;
  out[threadIdx.x] = 1;
}

template <bool right>
__global__ void missing_syncwarp(float* out) {
  GAF_SHARED(float, values, [kN]);
  values[threadIdx.x] = float(threadIdx.x);
  if (right) __syncwarp();
  out[threadIdx.x] = values[threadIdx.x ^ 1];
}

// A shuffle brings values, not memory.
template <bool right>
__global__ void shuffle_is_no_barrier(float* out) {
  GAF_SHARED(float, values, [kN]);
  values[threadIdx.x] = float(threadIdx.x);
  const float v = __shfl_xor_sync(kFullMask, 1.f, 1);
  if (right) __syncwarp();
  out[threadIdx.x] = v + values[threadIdx.x ^ 1];
}

template <bool right>
__global__ void misaligned(float* out) {
  if (threadIdx.x < 8) *reinterpret_cast<float4*>(out + 4 * threadIdx.x + (right ? 0 : 1)) = float4{1, 1, 1, 1};
  if (threadIdx.x >= 32) out[threadIdx.x] = 1;
  if (!right && threadIdx.x == 40) out[0] = 1;
}

template <bool right>
__global__ void sum_without_atomic(float* out) {
  if (right) {
    atomicAdd(&out[kN], 1.f);
  } else {
    out[kN] += 1;
  }
  out[threadIdx.x] = 1;
}

// Between blocks nothing is ordered.
template <bool right>
__global__ void race_of_blocks(float* out) {
  if (right ? blockIdx.x == 0 : threadIdx.x == 0 || blockIdx.x == 0) out[threadIdx.x] = 1;
}

template <bool right>
__global__ void endless(float* out) {
  volatile bool stop = right;
  while (!stop) {
  }
  out[threadIdx.x] = 1;
}

template <bool right>
__global__ void too_much_shared(float* out) {
  GAF_SHARED(double, values, [right ? 128 : 6200]);
  values[threadIdx.x] = 1;
  out[threadIdx.x] = float(values[threadIdx.x]);
}

template <bool right>
__global__ void deadlock(float* out) {
  if (right || threadIdx.x >= 32) {
    __syncthreads();
  } else {
    __syncwarp(threadIdx.x < 16 ? 0xffffu : 0xffff0000u);
    if (threadIdx.x < 31) __syncthreads();
    if (threadIdx.x == 31) __syncwarp(0xc0000000u);
  }
  out[threadIdx.x] = 1;
}

using Kernel = void (*)(float*);
struct Twins {
  Kernel right, wrong;
  int blocks;
};

#define TWINS(name, blocks) {#name, {&name<true>, &name<false>, blocks}}
const std::map<std::string, Twins> kTwins = {
    TWINS(missing_barrier, 1),   TWINS(write_after_read, 1), TWINS(off_by_one_shared, 1),     TWINS(divergent_barrier, 1),
    TWINS(early_exit, 1),        TWINS(wrong_mask, 1),       TWINS(lane_not_in_mask, 1),      TWINS(divergent_vote, 1),
    TWINS(unwritten_output, 1),  TWINS(outside, 1),          TWINS(far_outside, 1),           TWINS(missing_syncwarp, 1),
    TWINS(misaligned, 1),        TWINS(sum_without_atomic, 1), TWINS(race_of_blocks, 2),      TWINS(endless, 1),
    TWINS(too_much_shared, 1),   TWINS(deadlock, 1),         TWINS(shuffle_is_no_barrier, 1),
};

}  // namespace

std::vector<std::string> planted_names() {
  std::vector<std::string> names;
  for (const auto& [name, twins] : kTwins) names.push_back(name);
  return names;
}

void run_planted(const std::string& name, bool right, float* out) {
  const Twins& t = kTwins.at(name);
  gaf::cuda::launch(name.c_str(), right ? t.right : t.wrong, unsigned(t.blocks), kN, 0, gaf::Stream{}, out);
}
