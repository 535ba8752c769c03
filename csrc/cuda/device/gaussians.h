// Gaussians and their colours as projection reads them, shared by the way forward and the way back.
#pragma once
#include "half.h"
#include "math/blend.h"
#include "math/gaussian.h"
#include "math/sh.h"
#include "ops/rasterization.h"
#include "reduce.h"

namespace gaf::cuda {

__host__ __device__ constexpr int sh_bases(int degree) { return (degree + 1) * (degree + 1); }
// Numbers of a Gaussian in shared memory: odd, so that the rows of a warp begin in different banks.
__host__ __device__ constexpr int sh_stride(int degree) { return degree < 0 ? 1 : 3 * sh_bases(degree) | 1; }

struct GaussianInput {
  Vec3<float> mean, scale;
  Quat<float> quat;
  float opacity;
};

__device__ __forceinline__ GaussianInput load_gaussian(const RasterizationProjectArgs<float>& a, int64_t camera, int64_t i) {
  const int64_t at = (a.gaussians_per_camera ? camera * a.n_gaussians : 0) + i;
  return {load3(a.means, at), load3(a.scales, at), load4(a.quats, at), a.opacities[at]};
}

__device__ __forceinline__ const float* colors_of(const RasterizationProjectArgs<float>& a, int64_t camera) {
  return a.colors + (a.colors_per_camera ? camera * a.n_gaussians * a.n_colors : 0);
}

// The harmonics of 32 Gaussians, from `first` on, to shared memory [32, sh_stride]: the lanes read memory side by side. All lanes must call.
template <int kDegree>
__device__ __forceinline__ void stage_harmonics(const RasterizationProjectArgs<float>& a, int64_t camera, int64_t first, float* out) {
  constexpr int kUsed = 3 * sh_bases(kDegree);
  const int64_t start = ((a.colors_per_camera ? camera * a.n_gaussians : 0) + first) * a.n_colors, left = a.n_gaussians - first;
  const int n = left <= 0 ? 0 : int(left < kWarp ? left : kWarp);
  __syncwarp();  // what was there may still be read
  for (int i = lane_index(); i < n * kUsed; i += kWarp) {
    const int64_t at = start + i / kUsed * a.n_colors + i % kUsed;
    out[i / kUsed * sh_stride(kDegree) + i % kUsed] = a.half_colors ? half_to_float(a.half_colors[at]) : a.colors[at];
  }
  __syncwarp();
}

// Colour channel c before the clamp at 0.
template <int kDegree>
__device__ __forceinline__ float sh_channel(const float* basis, const float* coefficients, int c) {
  float sum = 0.5f;
#pragma unroll
  for (int k = 0; k < sh_bases(kDegree); ++k) sum = fma_(basis[k], coefficients[3 * k + c], sum);
  return sum;
}

// Calls f with the degree as a constant, -1 where colours are colours.
template <class F>
void with_degree(int64_t degree, F&& f) {
  switch (degree) {
    case 0: return f(std::integral_constant<int, 0>{});
    case 1: return f(std::integral_constant<int, 1>{});
    case 2: return f(std::integral_constant<int, 2>{});
    case 3: return f(std::integral_constant<int, 3>{});
    default: return f(std::integral_constant<int, -1>{});
  }
}

// Blocks of `threads` a camera, which go over the rows of splats, padding included.
inline int64_t blocks_a_camera(const RasterizationProjectArgs<float>& a, int threads) {
  const int64_t rows = (a.n_gaussians + kSplatGroup - 1) / kSplatGroup * kSplatGroup;
  return (rows + threads - 1) / threads;
}

}  // namespace gaf::cuda
