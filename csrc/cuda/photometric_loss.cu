// L1 and SSIM of a tile of pixels, one channel after the other: a block loads both images once, blurs sideways, blurs downwards to moments, and
// where the gradient is asked for blurs that of the moments back, all in shared memory. Global memory sees each image once (the margins come
// from the cache) and the gradient once; backward is one more pass over three images. Sums: a block's in double, then one block over the blocks.
#include "device/launch.h"
#include "device/reduce.h"
#include "math/ssim.h"
#include "ops/photometric_loss.h"

namespace gaf::cuda {
namespace {

using Args = PhotometricLossArgs<float>;

constexpr int kTaps = 2 * kSsimRadius + 1;
constexpr int kWidth = 32, kHeight = 16;  // pixels of a tile
// Outputs of one thread in a row or column: each number it loads serves up to so many windows.
constexpr int kAcross = 7, kDown = 5, kAcrossGrad = 4, kDownGrad = 2;

struct Sums {
  double l1, ssim, weight_l1, weight_ssim;
};

// Layout of the shared memory. kHalo: pixels around the tile whose SSIM matters, 0 without a gradient. Row lengths are odd, so that threads
// in different rows meet different banks.
template <int kHalo>
struct Layout {
  static constexpr int kMomentWidth = kWidth + 2 * kHalo, kMomentHeight = kHeight + 2 * kHalo;
  static constexpr int kInWidth = kMomentWidth + 2 * kSsimRadius, kInHeight = kMomentHeight + 2 * kSsimRadius;
  static constexpr int kInStride = kInWidth | 1, kMomentStride = kMomentWidth | 1, kGradStride = kWidth | 1;
};

template <int k>
__device__ __forceinline__ constexpr float window() {
  constexpr float w = float(kSsimWindow[k < kSsimRadius ? kSsimRadius - k : k - kSsimRadius]);
  return w;
}

// out[j] += window(k - j) in, for the outputs that input k of a run reaches.
template <int kOutputs, int k, int j = 0>
__device__ __forceinline__ void spread(float in, float (&out)[kOutputs]) {
  if constexpr (j < kOutputs) {
    if constexpr (k >= j && k - j < kTaps) out[j] += window<k - j>() * in;
    spread<kOutputs, k, j + 1>(in, out);
  }
}

// The blur of a run of kOutputs + 10 inputs, read(k), into kOutputs numbers for each of kQuantities quantities.
template <int kOutputs, int kQuantities, int k = 0, class Read>
__device__ __forceinline__ void blur(const Read& read, float (&out)[kQuantities][kOutputs]) {
  if constexpr (k < kOutputs + kTaps - 1) {
    float in[kQuantities];
    read(k, in);
#pragma unroll
    for (int q = 0; q < kQuantities; ++q) spread<kOutputs, k>(in[q], out[q]);
    blur<kOutputs, kQuantities, k + 1>(read, out);
  }
}

// One tile of one channel.
template <int kHalo>
struct Tile {
  using L = Layout<kHalo>;
  const Args& a;
  int64_t image, x0, y0, c;  // number, first pixel, channel
  float2* in;                // [kInHeight, kInStride] x, y; later the three gradients [3, kMomentHeight, kMomentStride]
  float4* blurred;           // [kInHeight, kMomentStride] moments blurred sideways; later gradients [3, kMomentHeight, kGradStride]

  __device__ bool inside(int64_t y, int64_t x) const { return y >= 0 && y < a.height && x >= 0 && x < a.width; }
  __device__ int64_t pixel(int64_t y, int64_t x) const { return (image * a.height + y) * a.width + x; }

  __device__ void load() const {
    for (int i = int(threadIdx.x); i < L::kInHeight * L::kInWidth; i += kThreads) {
      const int row = i / L::kInWidth, column = i % L::kInWidth;
      const int64_t y = y0 + row - kHalo - kSsimRadius, x = x0 + column - kHalo - kSsimRadius;
      float2 v = {0, 0};
      if (inside(y, x)) {
        const int64_t at = pixel(y, x) * a.channels + c;
        v = {a.image[at], a.target[at]};
      }
      in[row * L::kInStride + column] = v;
    }
  }

  __device__ void moments_across() const {
    constexpr int kRuns = (L::kMomentWidth + kAcross - 1) / kAcross;
    for (int i = int(threadIdx.x); i < L::kInHeight * kRuns; i += kThreads) {
      const int row = i % L::kInHeight, first = i / L::kInHeight * kAcross;
      const float2* from = in + row * L::kInStride + first;
      const int n = min(kAcross, L::kMomentWidth - first);
      float out[4][kAcross] = {};
      blur<kAcross, 4>(
          [&](int k, float* m) {
            const float2 v = k < n + kTaps - 1 ? from[k] : float2{0, 0};
            m[0] = v.x, m[1] = v.y, m[2] = v.x * v.x + v.y * v.y, m[3] = v.x * v.y;
          },
          out);
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
        if (j < n) blurred[row * L::kMomentStride + first + j] = {out[0][j], out[1][j], out[2][j], out[3][j]};
      }
    }
  }

  // Weight of a pixel in the mean of SSIM; 0 outside of the image and in its border.
  __device__ float ssim_weight(int64_t y, int64_t x) const {
    const bool counts = y >= a.border && y < a.height - a.border && x >= a.border && x < a.width - a.border;
    return !counts ? 0.f : a.mask ? a.mask[pixel(y, x)] : 1.f;
  }

  // Moments, SSIM and its gradient by the moments, which takes the place of the input.
  __device__ void compare(Sums& sums) const {
    constexpr int kRuns = (L::kMomentHeight + kDown - 1) / kDown;
    float* grads = reinterpret_cast<float*>(in);
    for (int i = int(threadIdx.x); i < L::kMomentWidth * kRuns; i += kThreads) {
      const int column = i % L::kMomentWidth, first = i / L::kMomentWidth * kDown;
      const float4* from = blurred + first * L::kMomentStride + column;
      const int n = min(kDown, L::kMomentHeight - first);
      float out[4][kDown] = {};
      blur<kDown, 4>(
          [&](int k, float* m) {
            const float4 v = k < n + kTaps - 1 ? from[k * L::kMomentStride] : float4{0, 0, 0, 0};
            m[0] = v.x, m[1] = v.y, m[2] = v.z, m[3] = v.w;
          },
          out);
#pragma unroll
      for (int j = 0; j < kDown; ++j) {
        if (j >= n) continue;
        const int row = first + j;
        const int64_t y = y0 + row - kHalo, x = x0 + column - kHalo;
        const SsimMoments<float> m = {out[0][j], out[1][j], out[2][j], out[3][j]};
        const SsimTerms<float> s = ssim_terms(m);
        const float w = inside(y, x) ? ssim_weight(y, x) : 0.f;
        const bool own = row >= kHalo && row < kHalo + kHeight && column >= kHalo && column < kHalo + kWidth;
        if (own && inside(y, x)) {
          sums.ssim += double(w * s.value);
          sums.weight_ssim += double(w);
        }
        if constexpr (kHalo > 0) {
          const SsimGrad<float> g = inside(y, x) ? ssim_vjp(m, s, w) : SsimGrad<float>{0, 0, 0};
          constexpr int kPlane = L::kMomentHeight * L::kMomentStride;
          float* to = grads + row * L::kMomentStride + column;
          to[0] = g.v_x, to[kPlane] = g.v_xx, to[2 * kPlane] = g.v_xy;
        }
      }
    }
  }

  __device__ void gradient_across() const {
    constexpr int kRuns = kWidth / kAcrossGrad, kPlane = L::kMomentHeight * L::kMomentStride, kOutPlane = L::kMomentHeight * L::kGradStride;
    static_assert(kWidth % kAcrossGrad == 0);
    const float* grads = reinterpret_cast<const float*>(in);
    for (int i = int(threadIdx.x); i < L::kMomentHeight * kRuns; i += kThreads) {
      const int row = i % L::kMomentHeight, first = i / L::kMomentHeight * kAcrossGrad;
      const float* from = grads + row * L::kMomentStride + first;
      float out[3][kAcrossGrad] = {};
      blur<kAcrossGrad, 3>([&](int k, float* g) { g[0] = from[k], g[1] = from[k + kPlane], g[2] = from[k + 2 * kPlane]; }, out);
      float* to = reinterpret_cast<float*>(blurred) + row * L::kGradStride + first;
#pragma unroll
      for (int j = 0; j < kAcrossGrad; ++j) to[j] = out[0][j], to[j + kOutPlane] = out[1][j], to[j + 2 * kOutPlane] = out[2][j];
    }
  }

  __device__ void gradient_down() const {
    constexpr int kRuns = kHeight / kDownGrad, kPlane = L::kMomentHeight * L::kGradStride;
    static_assert(kHeight % kDownGrad == 0);
    for (int i = int(threadIdx.x); i < kWidth * kRuns; i += kThreads) {
      const int column = i % kWidth, first = i / kWidth * kDownGrad;
      const float* from = reinterpret_cast<const float*>(blurred) + first * L::kGradStride + column;
      float out[3][kDownGrad] = {};
      blur<kDownGrad, 3>(
          [&](int k, float* g) {
            const float* v = from + k * L::kGradStride;
            g[0] = v[0], g[1] = v[kPlane], g[2] = v[2 * kPlane];
          },
          out);
#pragma unroll
      for (int j = 0; j < kDownGrad; ++j) {
        const int64_t y = y0 + first + j, x = x0 + column;
        if (!inside(y, x)) continue;
        const int64_t at = pixel(y, x) * a.channels + c;
        a.ssim_gradient[at] = out[0][j] + 2 * a.image[at] * out[1][j] + a.target[at] * out[2][j];
      }
    }
  }

  __device__ void add_l1(Sums& sums) const {
    for (int i = int(threadIdx.x); i < kWidth * kHeight; i += kThreads) {
      const int row = i / kWidth, column = i % kWidth;
      if (!inside(y0 + row, x0 + column)) continue;
      const float2 v = in[(row + kHalo + kSsimRadius) * L::kInStride + column + kHalo + kSsimRadius];
      const float w = a.mask ? a.mask[pixel(y0 + row, x0 + column)] : 1.f;
      sums.l1 += double(w * fabsf(v.x - v.y));
      sums.weight_l1 += double(w);
    }
  }
};

// blocks: [gridDim] out, the sums of each tile.
template <int kHalo>
__global__ void __launch_bounds__(kThreads) fwd_kernel(Args a, Sums* blocks) {
  using L = Layout<kHalo>;
  constexpr int kInBytes = L::kInHeight * L::kInStride * 8, kGradBytes = 3 * L::kMomentHeight * L::kMomentStride * 4;
  constexpr int kBlurredBytes = L::kInHeight * L::kMomentStride * 16, kGradAcrossBytes = 3 * L::kMomentHeight * L::kGradStride * 4;
  static_assert(kHalo == 0 || (kGradBytes <= kInBytes && kGradAcrossBytes <= kBlurredBytes));
  GAF_SHARED(float2, in, [kInBytes / 8]);
  GAF_SHARED(float4, blurred, [kBlurredBytes / 16]);
  GAF_SHARED(double, partial, [kWarp]);
  Tile<kHalo> tile{a, blockIdx.z, int64_t(blockIdx.x) * kWidth, int64_t(blockIdx.y) * kHeight, 0, in, blurred};
  Sums sums{};
  for (tile.c = 0; tile.c < a.channels; ++tile.c) {
    tile.load();
    __syncthreads();
    tile.add_l1(sums);
    tile.moments_across();
    __syncthreads();
    tile.compare(sums);
    if constexpr (kHalo > 0) {
      __syncthreads();
      tile.gradient_across();
      __syncthreads();
      tile.gradient_down();
    }
    __syncthreads();
  }
  double* own[4] = {&sums.l1, &sums.ssim, &sums.weight_l1, &sums.weight_ssim};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    *own[i] = block_sum(*own[i], partial);
    __syncthreads();
  }
  if (threadIdx.x == 0) blocks[(int64_t(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x] = sums;
}

// One block: the tiles' sums in a fixed order.
__global__ void __launch_bounds__(kThreads) total_kernel(Args a, const Sums* blocks, int64_t n) {
  GAF_SHARED(double, partial, [kWarp]);
  Sums s{};
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    s = {s.l1 + blocks[i].l1, s.ssim + blocks[i].ssim, s.weight_l1 + blocks[i].weight_l1, s.weight_ssim + blocks[i].weight_ssim};
  }
  double* own[4] = {&s.l1, &s.ssim, &s.weight_l1, &s.weight_ssim};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    *own[i] = block_sum(*own[i], partial);
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  // Nothing to compare: no difference.
  *a.l1 = float(s.weight_l1 == 0 ? 0 : s.l1 / s.weight_l1);
  *a.ssim = float(s.weight_ssim == 0 ? 1 : s.ssim / s.weight_ssim);
  a.weights[0] = float(s.weight_l1);
  a.weights[1] = float(s.weight_ssim);
}

// kVector numbers a thread, loaded as one where the arrays are aligned.
template <int kVector>
__global__ void __launch_bounds__(kThreads) bwd_kernel(Args a, int64_t n) {
  using Numbers = std::conditional_t<kVector == 4, float4, float>;
  const int64_t first = thread_index() * kVector;
  if (first >= n) return;
  const float v_l1 = a.weights[0] == 0 ? 0.f : *a.v_l1 / a.weights[0], v_ssim = a.weights[1] == 0 ? 0.f : *a.v_ssim / a.weights[1];
  alignas(16) float x[kVector], y[kVector], g[kVector], out[kVector];
  *reinterpret_cast<Numbers*>(x) = *reinterpret_cast<const Numbers*>(a.image + first);
  *reinterpret_cast<Numbers*>(y) = *reinterpret_cast<const Numbers*>(a.target + first);
  *reinterpret_cast<Numbers*>(g) = *reinterpret_cast<const Numbers*>(a.ssim_gradient + first);
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    const float v = a.mask ? v_l1 * a.mask[(first + j) / a.channels] : v_l1, d = x[j] - y[j];
    out[j] = (d > 0 ? v : d < 0 ? -v : 0.f) + v_ssim * g[j];
  }
  *reinterpret_cast<Numbers*>(a.v_image + first) = *reinterpret_cast<const Numbers*>(out);
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % sizeof(float4) == 0; }

}  // namespace

void photometric_loss_fwd(const Args& a, Stream stream) {
  const char* name = "photometric_loss_fwd";
  dim3 tiles(unsigned((a.width + kWidth - 1) / kWidth), unsigned((a.height + kHeight - 1) / kHeight), unsigned(a.n_images));
  if (a.channels == 0) tiles.x = 0;
  const int64_t n = int64_t(tiles.x) * tiles.y * tiles.z;
  Sums* blocks = stream.scratch<Sums>(n);
  launch(name, a.ssim_gradient ? fwd_kernel<kSsimRadius> : fwd_kernel<0>, tiles, kThreads, 0, stream, a, blocks);
  launch(name, total_kernel, 1, kThreads, 0, stream, a, blocks, n);
}

void photometric_loss_bwd(const Args& a, Stream stream) {
  const char* name = "photometric_loss_bwd";
  const int64_t n = a.n_images * a.height * a.width * a.channels;
  if (n % 4 == 0 && aligned(a.image) && aligned(a.target) && aligned(a.ssim_gradient) && aligned(a.v_image)) {
    launch(name, bwd_kernel<4>, blocks_for(n / 4), kThreads, 0, stream, a, n);
  } else {
    launch(name, bwd_kernel<1>, blocks_for(n), kThreads, 0, stream, a, n);
  }
}

}  // namespace gaf::cuda
