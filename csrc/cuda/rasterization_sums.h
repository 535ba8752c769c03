// What backward's blending leaves for each pair, and how it becomes gradients of splats.
#pragma once
#include "rasterization.h"

namespace gaf::cuda {

constexpr const char* kBlendBwd = "rasterization_blend_bwd";  // what its kernels' failures are reported as
constexpr int kMoments = 6;                            // of math/blend.h: 1, u, v, u^2, u v, v^2 times alpha v_alpha; then the colours
constexpr int kAbsField = kMoments + kSplatChannels;   // with absgrad two sums of absolute values
constexpr int kPairFields = kAbsField + 2;             // 48 bytes

struct PairSums {
  float* pairs;    // [capacity, 12] by slot
  uint8_t* used;   // [capacity] by slot; 0: the pair was not reached
  float* splats;   // [rows, 12] in place of both where sums are atomic, or there were too many pairs
  bool atomic;
};

void blend_vjp_pass(const BlendPass& pass, const PairSums& sums, Stream stream);

}  // namespace gaf::cuda
