// L1 and SSIM, row by row down a strip of the images. A thread is a column: it blurs the new row sideways from shared memory, keeps the last
// eleven blurred rows in registers and blurs those downwards, which gives the moments five rows above. Where the gradient is asked for, that of
// the moments goes the same way once more, which gives the gradient ten rows above. Global memory sees each image once (margins come from the
// cache) and the gradient once; backward is one more pass over three images. Sums: a block's in double, then one block over the blocks.
#include <utility>

#include "device/launch.h"
#include "device/reduce.h"
#include "math/lanes.h"
#include "math/ssim.h"
#include "ops/device.h"
#include "ops/photometric_loss.h"

namespace gaf::cuda {
namespace {

using Args = PhotometricLossArgs<float>;

constexpr int kTaps = 2 * kSsimRadius + 1;

struct Sums {
  double l1, ssim, weight_l1, weight_ssim;
};

// A strip of an image: kColumns columns of moments, a thread each, of which the inner ones' gradient is this block's. A column is one channel of a pixel.
// kStep: columns between a pixel and its neighbour. Images of 1 and 3 channels are read as they lie in memory, kStep = channels, all channels at
// once; others channel by channel, kStep = 1.
template <int kStep, bool kGradient>
struct Strip {
  // Twelve warps on a multiprocessor: more than 128 registers a thread, which sixteen would leave, are needed.
  static constexpr int kColumns = kStep == 1 ? 128 : 384, kBlocks = kStep == 1 ? 3 : 1;
  static constexpr int kReach = kSsimRadius * kStep;
  static constexpr int kIn = kColumns + 2 * kReach;                             // columns of the images that moments see
  static constexpr int kOwn = kGradient ? kColumns - 2 * kReach : kColumns;     // columns whose results are this block's
  static constexpr int kAbove = kGradient ? 2 * kSsimRadius : kSsimRadius;      // rows of the images above the first of this block's
};

// Every kTaps rows this unrolled step comes back to the same registers: `row % kTaps` is a constant in each copy.
template <int... k, class F>
__device__ __forceinline__ void unrolled(std::integer_sequence<int, k...>, const F& f) {
  (f(std::integral_constant<int, k>{}), ...);
}

template <int k>
__device__ __forceinline__ constexpr float window() {
  constexpr float w = float(kSsimWindow[k < kSsimRadius ? kSsimRadius - k : k - kSsimRadius]);
  return w;
}

// The same for loops. They compile in half of the time that `unrolled` takes, and where they are used they give the same machine code.
struct Window {
  float tap[kTaps];
  __device__ __forceinline__ constexpr Window() : tap() {
    for (int k = 0; k < kTaps; ++k) tap[k] = float(kSsimWindow[k < kSsimRadius ? kSsimRadius - k : k - kSsimRadius]);
  }
};

// Sum of a ring of kTaps rows whose newest is at `newest`.
template <int newest, int k = 0>
__device__ __forceinline__ float down(const float (&ring)[kTaps]) {
  if constexpr (k == kTaps) {
    return 0.f;
  } else {
    return fma_(window<k>(), ring[(newest + 1 + k) % kTaps], down<newest, k + 1>(ring));
  }
}

template <int kStep, bool kGradient>
class Walk {
  using S = Strip<kStep, kGradient>;
  static constexpr int kColumns = S::kColumns;

 public:
  __device__ Walk(const Args& a, int rows, float2* in, float* grads) : a_(a), in_(in), grads_(grads) {
    image_ = int64_t(interleaved() ? blockIdx.z : blockIdx.z / a.channels) * a.height;
    channel_ = interleaved() ? 0 : int(blockIdx.z % a.channels);
    column_ = own0() - (kGradient ? S::kReach : 0) + int(threadIdx.x);
    const bool inside = column_ >= 0 && column_ < columns();
    const int x = column_ >= 0 ? column_ / kStep : -1;
    counts_ = inside && x >= a.border && x < a.width - a.border;
    const int lane = int(threadIdx.x) - (kGradient ? S::kReach : 0);
    own_ = inside && lane >= 0 && lane < S::kOwn;
    y0_ = int(blockIdx.y) * rows;
    y1_ = y0_ + rows < a.height ? y0_ + rows : int(a.height);
  }

  // Rows of the images come one by one. Row y gives the moments of row y - 5, and those the gradient of row y - 10.
  __device__ Sums run() {
    const int first = y0_ - S::kAbove, last = y1_ + S::kAbove;
    fetch(first);
    store(0);
    for (int y = first; y < last; y += kTaps) {
      unrolled(std::make_integer_sequence<int, kTaps>{}, [&](auto k) {
        constexpr int kRow = decltype(k)::value;
        const int row = y + kRow;
        if (row < last) step<kRow>(row, (row - first) & 1, last);
      });
    }
    // A column's few rows are exact enough in single precision; doubles are slow on many cards.
    return {double(l1_), double(ssim_), double(weight(y0_, y1_)), double(counts_ ? weight(max(y0_, a_.border), min(y1_, int(a_.height) - a_.border)) : 0.f)};
  }

 private:
  // Numbers of the arguments, which lie in constant memory: kept in registers they would be spilled.
  __device__ bool interleaved() const { return kStep > 1 || a_.channels == 1; }
  __device__ int own0() const { return int(blockIdx.x) * S::kOwn; }
  __device__ int columns() const { return int(interleaved() ? a_.width * a_.channels : a_.width); }
  __device__ int64_t row_of(int y) const { return image_ + y; }
  __device__ int64_t at(int y, int column) const {
    return row_of(y) * a_.width * a_.channels + (interleaved() ? column : column * a_.channels + channel_);
  }
  __device__ float mask(int y) const { return a_.mask ? a_.mask[row_of(y) * a_.width + column_ / kStep] : 1.f; }

  // Sum of the weights of this column's rows.
  __device__ float weight(int begin, int end) const {
    if (!own_ || begin >= end) return 0;
    if (!a_.mask) return float(end - begin);
    float sum = 0;
    for (int y = begin; y < end; ++y) sum += mask(y);
    return sum;
  }

  // A row of the images on its way to shared memory: a thread brings its column, the first 2 kReach of them a second one.
  __device__ void fetch(int y) {
    const bool row = y >= 0 && y < a_.height;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int column = own0() - (kGradient ? 2 : 1) * S::kReach + int(threadIdx.x) + i * kColumns;
      next_[i] = {0, 0};
      if (row && column >= 0 && column < columns() && (i == 0 || int(threadIdx.x) < 2 * S::kReach)) {
        next_[i] = {a_.image[at(y, column)], a_.target[at(y, column)]};
      }
    }
  }
  __device__ void store(int buffer) {
    in_[buffer * S::kIn + int(threadIdx.x)] = next_[0];
    if (int(threadIdx.x) < 2 * S::kReach) in_[buffer * S::kIn + kColumns + int(threadIdx.x)] = next_[1];
  }

  template <int kRow>
  __device__ __forceinline__ void step(int y, int buffer, int last) {
    __syncthreads();  // this row's images and the gradients of the row before are there
    if (y + 1 < last) fetch(y + 1);
    across<kRow>(in_ + buffer * S::kIn + int(threadIdx.x), y);
    if constexpr (kGradient) gradient<kRow>(grads_ + (buffer ^ 1) * 3 * kColumns + int(threadIdx.x), y - 1);
    compare<kRow>(grads_ + buffer * 3 * kColumns + int(threadIdx.x), y - kSsimRadius);
    if (y + 1 < last) store(buffer ^ 1);
    if constexpr (kGradient) {
      if (y + 1 == last) {  // the last row's gradients have no step of their own
        __syncthreads();
        gradient<(kRow + 1) % kTaps>(grads_ + buffer * 3 * kColumns + int(threadIdx.x), y);
      }
    }
  }

  template <int kRow>
  __device__ __forceinline__ void across(const float2* row, int y) {
    float m[4] = {};
    unrolled(std::make_integer_sequence<int, kTaps>{}, [&](auto k) {
      constexpr float w = window<decltype(k)::value>();
      const float2 v = row[decltype(k)::value * kStep];
      m[0] = fma_(w, v.x, m[0]);
      m[1] = fma_(w, v.y, m[1]);
      m[2] = fma_(w, fma_(v.x, v.x, v.y * v.y), m[2]);
      m[3] = fma_(w, v.x * v.y, m[3]);
    });
#pragma unroll
    for (int q = 0; q < 4; ++q) moments_[q][kRow] = m[q];
    if (own_ && y >= y0_ && y < y1_) {
      const float2 v = row[S::kReach];
      l1_ = fma_(mask(y), fabsf(v.x - v.y), l1_);
    }
  }

  // Moments, SSIM and its gradient by the moments at row y.
  template <int kRow>
  __device__ __forceinline__ void compare(float* grads, int y) {
    if (y < y0_ - (kGradient ? kSsimRadius : 0)) return;
    SsimGrad<float> g = {0, 0, 0};
    if (counts_ && y >= a_.border && y < a_.height - a_.border) {
      const SsimMoments<float> m = {down<kRow>(moments_[0]), down<kRow>(moments_[1]), down<kRow>(moments_[2]), down<kRow>(moments_[3])};
      const SsimTerms<float> s = ssim_terms(m);
      const float w = mask(y);
      if (own_ && y >= y0_ && y < y1_) ssim_ = fma_(w, s.value, ssim_);
      if constexpr (kGradient) g = ssim_vjp(m, s, w);
    }
    if constexpr (kGradient) grads[0] = g.v_x, grads[kColumns] = g.v_xx, grads[2 * kColumns] = g.v_xy;
  }

  // `y`: the row of the images that brought these gradients. They are of row y - 5; with them row y - 10 is complete.
  template <int kRow>
  __device__ __forceinline__ void gradient(const float* grads, int y) {
    if (y < y0_ || !own_) return;
    constexpr int kAt = (kRow + kTaps - 1) % kTaps;
    float g[3] = {};
    constexpr Window window;
#pragma unroll
    for (int k = 0; k < kTaps; ++k) {
#pragma unroll
      for (int q = 0; q < 3; ++q) g[q] = fma_(window.tap[k], grads[q * kColumns + (k - kSsimRadius) * kStep], g[q]);
    }
#pragma unroll
    for (int q = 0; q < 3; ++q) gradients_[q][kAt] = g[q];
    const int out = y - 2 * kSsimRadius;
    if (out < y0_) return;
    const int64_t i = at(out, column_);
    const float v_x = down<kAt>(gradients_[0]), v_xx = down<kAt>(gradients_[1]), v_xy = down<kAt>(gradients_[2]);
    a_.ssim_gradient[i] = fma_(2 * a_.image[i], v_xx, fma_(a_.target[i], v_xy, v_x));
  }

  const Args& a_;
  int64_t image_;  // number of its first row
  int channel_;    // where channels are walked one by one
  float2* in_;    // [2, kIn]
  float* grads_;  // [2, 3, kColumns]
  int column_, y0_, y1_;
  bool counts_, own_;
  float2 next_[2];
  float moments_[4][kTaps] = {}, gradients_[3][kTaps] = {};
  float l1_ = 0, ssim_ = 0;
};

// blocks: [gridDim] out, the sums of each strip.
template <int kStep, bool kGradient>
__global__ void __launch_bounds__(Strip<kStep, kGradient>::kColumns, Strip<kStep, kGradient>::kBlocks) photometric_fwd_kernel(
    Args a, int rows, Sums* blocks) {
  using S = Strip<kStep, kGradient>;
  GAF_SHARED(float2, in, [2 * S::kIn]);
  GAF_SHARED(float, grads, [kGradient ? 6 * S::kColumns : 1]);
  GAF_SHARED(double, partial, [kWarp]);
  Sums sums = Walk<kStep, kGradient>(a, rows, in, grads).run();
  double* own[4] = {&sums.l1, &sums.ssim, &sums.weight_l1, &sums.weight_ssim};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    __syncthreads();
    *own[i] = block_sum(*own[i], partial);
  }
  if (threadIdx.x == 0) blocks[(int64_t(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x] = sums;
}

// One block: the tiles' sums in a fixed order.
__global__ void __launch_bounds__(kThreads) photometric_total_kernel(Args a, const Sums* blocks, int64_t n) {
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
__global__ void __launch_bounds__(kThreads) photometric_bwd_kernel(Args a, int64_t n) {
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

// Rows of a strip: the fewest steps of the card, whose multiprocessors take `at_once` blocks together. Long strips spend less on the rows above
// and below them, short ones keep a large card busy with a small image.
int strip_rows(int64_t height, int64_t columns_of_strips, int rows_beside, int at_once) {
  int64_t best = height, least = INT64_MAX;
  for (int64_t n = 1; n <= height && n <= 128; ++n) {
    const int64_t rows = (height + n - 1) / n, blocks = columns_of_strips * n;
    const int64_t steps = (blocks + at_once - 1) / at_once * (rows + rows_beside);
    if (steps < least) least = steps, best = rows;
  }
  return int(best);
}

template <int kStep, bool kGradient>
void forward(const Args& a, Stream stream) {
  const char* name = "photometric_loss_fwd";
  constexpr int kOwn = Strip<kStep, kGradient>::kOwn;
  const bool interleaved = kStep > 1 || a.channels == 1;
  const int64_t columns = interleaved ? a.width * a.channels : a.width, strips = (columns + kOwn - 1) / kOwn;
  const int64_t images = a.channels == 0 ? 0 : interleaved ? a.n_images : a.n_images * a.channels;
  using S = Strip<kStep, kGradient>;
  const int rows = strip_rows(a.height, strips * images, 2 * S::kAbove, S::kBlocks * multiprocessors(stream.device));
  const dim3 grid(unsigned(strips), unsigned(rows > 0 ? (a.height + rows - 1) / rows : 0), unsigned(images));
  const int64_t n = int64_t(grid.x) * grid.y * grid.z;
  Sums* blocks = stream.scratch<Sums>(n);
  launch(name, photometric_fwd_kernel<kStep, kGradient>, grid, Strip<kStep, kGradient>::kColumns, 0, stream, a, rows, blocks);
  launch(name, photometric_total_kernel, 1, kThreads, 0, stream, a, blocks, n);
}

}  // namespace

void photometric_loss_fwd(const Args& a, Stream stream) {
  if (a.channels == 3) {
    a.ssim_gradient ? forward<3, true>(a, stream) : forward<3, false>(a, stream);
  } else {
    a.ssim_gradient ? forward<1, true>(a, stream) : forward<1, false>(a, stream);
  }
}

void photometric_loss_bwd(const Args& a, Stream stream) {
  const char* name = "photometric_loss_bwd";
  const int64_t n = a.n_images * a.height * a.width * a.channels;
  if (n % 4 == 0 && aligned(a.image) && aligned(a.target) && aligned(a.ssim_gradient) && aligned(a.v_image)) {
    launch(name, photometric_bwd_kernel<4>, blocks_for(n / 4), kThreads, 0, stream, a, n);
  } else {
    launch(name, photometric_bwd_kernel<1>, blocks_for(n), kThreads, 0, stream, a, n);
  }
}

}  // namespace gaf::cuda
