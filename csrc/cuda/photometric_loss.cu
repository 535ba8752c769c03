// L1 and SSIM, row by row down a strip of the images. A thread has two neighbouring pixels of a channel: it blurs the new row sideways from shared
// memory and adds it, in registers, to the eleven rows of sums that it is part of, of which the oldest is then complete: the moments five rows
// above. Where the gradient is asked for, half of the warps do so, and the other half does the same with the derivatives by the moments, which gives
// the gradient ten rows above. Global memory sees each image once (margins come from the cache) and the gradient once; backward is one more pass
// over three images. Sums: a block's in double, then one block over the blocks.
#include <stdexcept>
#include <string>

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

template <int n>
struct alignas(n * sizeof(float)) Numbers {  // loaded as one
  float at[n];
};

// A strip of an image, in slots: kPixels neighbouring pixels of one channel. kStep: slots to the neighbour in the same channel. RGB is read as it
// lies in memory, kStep = channels = 3; other images are walked channel by channel, kStep = 1.
template <int kStep, bool kGradient>
struct Strip {
  static constexpr int kPixels = 2;                  // neighbours share most of the loads of the blur across
  static constexpr int kLanes = 128;                 // slots whose moments are made here, a thread each
  static constexpr int kRoles = kGradient ? 2 : 1;   // kLanes threads each: moments, and gradient
  static constexpr int kBlocks = kGradient ? 2 : 3;  // on a multiprocessor: sixteen warps of up to 128 registers
  static constexpr int kReach = (kSsimRadius + kPixels - 1) / kPixels;                   // slots of a channel that a window reaches to each side
  static constexpr int kMargin = kReach * kStep;                                         // the same in slots of all channels
  static constexpr int kSlots = kLanes + 2 * kMargin;                                    // of the images, which moments see
  static constexpr int kOwn = (kLanes - (kGradient ? 2 * kMargin : 0)) / kStep * kStep;  // whose results are this block's
  static constexpr int kAbove = kGradient ? 2 * kSsimRadius : kSsimRadius;               // rows of the images above the first of this block's

  struct Row {
    Numbers<2 * kPixels> images[kSlots];                  // x and y of each pixel
    Numbers<2 * kPixels> v_x_xx[kGradient ? kLanes : 1];  // v_x and v_xx of each pixel
    Numbers<kPixels> v_xy[kGradient ? kLanes : 1];
  };
};

struct Window {
  float tap[kTaps];
  __device__ __forceinline__ constexpr Window() : tap() {
    for (int k = 0; k < kTaps; ++k) tap[k] = float(kSsimWindow[k < kSsimRadius ? kSsimRadius - k : k - kSsimRadius]);
  }
};

// Blur down. `sums`: of the ten coming rows that rows so far are part of, the next first. Returns the one that `value`, of a new row, completes.
// Every result takes the place of the sum before it: nothing is moved, all are independent, and the loop over rows stays small. (Kept values
// instead of sums need a loop of eleven unrolled rows, 94 kB of instructions.)
__device__ __forceinline__ float down(float (&sums)[kTaps - 1], float value) {
  constexpr Window window;
  const float complete = fma_(window.tap[0], value, sums[0]);
#pragma unroll
  for (int k = 1; k < kTaps - 1; ++k) sums[k - 1] = fma_(window.tap[k], value, sums[k]);
  sums[kTaps - 2] = window.tap[kTaps - 1] * value;
  return complete;
}

template <int kStep, bool kGradient>
class Walk {
  using S = Strip<kStep, kGradient>;
  using Row = typename S::Row;
  static constexpr int kPixels = S::kPixels;

 public:
  __device__ Walk(const Args& a, int rows, Row* row) : a_(a), row_(row) {
    const int walked = kStep > 1 ? 1 : channels();  // channels, one by one
    pixel_ = int64_t(int(blockIdx.z) / walked) * height() * width();
    channel_ = int(blockIdx.z) % walked;
    lane_ = int(threadIdx.x) % S::kLanes;
    role_ = int(threadIdx.x) / S::kLanes;
    y0_ = int(blockIdx.y) * rows;
    y1_ = min(y0_ + rows, height());
  }

  __device__ Sums run() {
    if constexpr (S::kRoles == 1) {
      walk<true, true>();
    } else if (role_ == 0) {
      walk<true, false>();
    } else {
      walk<false, true>();
    }
    return sums();
  }

 private:
  // The roles wait for each other from different places.
  __device__ static void meet() { meet_block(S::kRoles * S::kLanes); }

  // Rows of the images come one by one. Row y gives the moments of row y - 5, and those, a step later, the gradient of row y - 10.
  template <bool kFirst, bool kLast>
  __device__ __forceinline__ void walk() {
    const int first = y0_ - S::kAbove, last = y1_ + S::kAbove, pitch = width() * channels();
    int64_t next = row_of(first) * channels();  // where the row to be fetched starts
    if constexpr (kLast) {
      fetch(first, next);
      store(row_[0]);
    }
    int buffer = 0;
#pragma unroll 1
    for (int y = first; y < last; ++y, buffer ^= 1) {
      Row &row = row_[buffer], &other = row_[buffer ^ 1];
      meet();  // this row's images and the derivatives of the row before are there
      if constexpr (kLast) {
        next += pitch;
        if (y + 1 < last) fetch(y + 1, next);
        if constexpr (kGradient) gradient(other, y - 1, next - int64_t(2 * kSsimRadius + 2) * pitch);
        if (y + 1 < last) store(other);
      }
      if constexpr (kFirst) moments(row, y);
    }
    if constexpr (kGradient) {  // the last row's derivatives have no step of their own
      meet();
      if constexpr (kLast) gradient(row_[buffer ^ 1], last - 1, next - int64_t(2 * kSsimRadius + 1) * pitch);
    }
  }

  __device__ int height() const { return int(a_.height); }
  __device__ int width() const { return int(a_.width); }
  __device__ int channels() const { return kStep > 1 ? kStep : int(a_.channels); }
  // Number of the first pixel of a row. Images have fewer than 2^31 numbers a row, and together more.
  __device__ int64_t row_of(int y) const { return pixel_ + int64_t(y) * width(); }
  // Of a slot, its first pixel and where in a row that lies. Slots are counted from `margins` margins left of the first that is this block's.
  __device__ int x_of(int slot, int margins) const {
    return (int(blockIdx.x) * (S::kOwn / kStep) + slot / kStep - margins * S::kReach) * kPixels;
  }
  __device__ int column_of(int slot, int margins) const {
    return x_of(slot, margins) * channels() + (kStep > 1 ? slot % kStep : channel_);
  }
  __device__ int x_of_moments() const { return x_of(lane_, kGradient ? 1 : 0); }
  __device__ bool inside(int x) const { return unsigned(x) < unsigned(width()); }
  __device__ bool counts(int x) const { return x >= a_.border && x < width() - a_.border; }
  // 0 outside of the image and where `border` pixels at its sides do not count.
  __device__ __forceinline__ void weights(int y, int x0, float (&w)[kPixels], int border) const {
    const bool row_counts = y >= border && y < height() - border;
#pragma unroll
    for (int j = 0; j < kPixels; ++j) w[j] = row_counts && x0 + j >= border && x0 + j < width() - border ? 1.f : 0.f;
    if (!a_.mask) return;
#pragma unroll
    for (int j = 0; j < kPixels; ++j) w[j] = w[j] > 0 ? a_.mask[row_of(y) + x0 + j] : 0.f;
  }

  // A row of the images on its way to shared memory: a thread brings a slot, the first of them a second one.
  __device__ __forceinline__ void fetch(int y, int64_t at) {
    const bool there = unsigned(y) < unsigned(height());
    const float *image = a_.image + at, *target = a_.target + at;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int slot = lane_ + i * S::kLanes, x0 = x_of(slot, kGradient ? 2 : 1), column = column_of(slot, kGradient ? 2 : 1);
      next_[i] = {};
#pragma unroll
      for (int s = 0; s < kPixels; ++s) {
        if (!there || !inside(x0 + s) || slot >= S::kSlots) continue;
        next_[i].at[2 * s] = image[column + s * channels()];
        next_[i].at[2 * s + 1] = target[column + s * channels()];
      }
    }
  }
  __device__ __forceinline__ void store(Row& row) {
    row.images[lane_] = next_[0];
    if (lane_ < S::kSlots - S::kLanes) row.images[S::kLanes + lane_] = next_[1];
  }

  // The images' row y, and moments, SSIM and its derivatives by the moments at row y - 5.
  __device__ __forceinline__ void moments(Row& row, int y) {
    constexpr Window window;
    const int x0 = x_of_moments();
    float w[kPixels];
    weights(y - kSsimRadius, x0, w, a_.border);
    float m[4][kPixels] = {}, image[kPixels], target[kPixels];
#pragma unroll
    for (int i = 0; i <= 2 * S::kReach; ++i) {
      const Numbers<2 * kPixels> v = row.images[lane_ + i * kStep];
#pragma unroll
      for (int s = 0; s < kPixels; ++s) {
        const float a = v.at[2 * s], b = v.at[2 * s + 1], squares = fma_(a, a, b * b), product = a * b;
#pragma unroll
        for (int j = 0; j < kPixels; ++j) {
          const int k = (i - S::kReach) * kPixels + s - j + kSsimRadius;
          if (k < 0 || k >= kTaps) continue;
          m[0][j] = fma_(window.tap[k], a, m[0][j]);
          m[1][j] = fma_(window.tap[k], b, m[1][j]);
          m[2][j] = fma_(window.tap[k], squares, m[2][j]);
          m[3][j] = fma_(window.tap[k], product, m[3][j]);
        }
        if (i == S::kReach) image[s] = a, target[s] = b;
      }
    }
    if constexpr (!kGradient) {
      float w_l1[kPixels];
      weights(y, x0, w_l1, 0);
      if (y >= y0_ && y < y1_) difference(w_l1, image, target);
    }
#pragma unroll
    for (int q = 0; q < 4; ++q) {
#pragma unroll
      for (int j = 0; j < kPixels; ++j) m[q][j] = down(moments_[q][j], m[q][j]);
    }
    similarity(row, m, w, y - kSsimRadius);
  }

  __device__ __forceinline__ void similarity(Row& row, const float (&m)[4][kPixels], const float (&w)[kPixels], int y) {
    const bool own_row = y >= y0_ && y < y1_;
    Numbers<2 * kPixels> v_x_xx;
    Numbers<kPixels> v_xy;
#pragma unroll
    for (int j = 0; j < kPixels; ++j) {
      const SsimMoments<float> moments = {m[0][j], m[1][j], m[2][j], m[3][j]};
      const SsimTerms<float> s = ssim_terms(moments);
      if (own_row) ssim_ = fma_(w[j], s.value, ssim_);
      if constexpr (kGradient) {
        const SsimGrad<float> g = ssim_vjp(moments, s, w[j]);
        v_x_xx.at[2 * j] = g.v_x, v_x_xx.at[2 * j + 1] = g.v_xx, v_xy.at[j] = g.v_xy;
      }
    }
    if constexpr (kGradient) row.v_x_xx[lane_] = v_x_xx, row.v_xy[lane_] = v_xy;
  }

  __device__ __forceinline__ void difference(const float (&w)[kPixels], const float (&image)[kPixels], const float (&target)[kPixels]) {
#pragma unroll
    for (int j = 0; j < kPixels; ++j) l1_ = fma_(w[j], fabsf(image[j] - target[j]), l1_);
  }

  // `y`: the row of the images that brought these derivatives. They are of row y - 5; with them row y - 10 is complete.
  __device__ __forceinline__ void gradient(const Row& row, int y, int64_t at) {
    if (y < y0_ || lane_ >= S::kOwn) return;
    constexpr Window window;
    const int out = y - 2 * kSsimRadius, x0 = x_of(lane_, 0);
    const int column = column_of(lane_, 0);
    float image[kPixels] = {}, target[kPixels] = {};
#pragma unroll
    for (int j = 0; j < kPixels; ++j) {  // early: they take their time
      if (out < y0_ || !inside(x0 + j)) continue;
      image[j] = (a_.image + at)[column + j * channels()];
      target[j] = (a_.target + at)[column + j * channels()];
    }
    float w[kPixels];
    weights(out, x0, w, 0);
    float g[3][kPixels] = {};
#pragma unroll
    for (int i = 0; i <= 2 * S::kReach; ++i) {
      const Numbers<2 * kPixels> v_x_xx = row.v_x_xx[lane_ + i * kStep];
      const Numbers<kPixels> v_xy = row.v_xy[lane_ + i * kStep];
#pragma unroll
      for (int s = 0; s < kPixels; ++s) {
#pragma unroll
        for (int j = 0; j < kPixels; ++j) {
          const int k = (i - S::kReach) * kPixels + s - j + kSsimRadius;
          if (k < 0 || k >= kTaps) continue;
          g[0][j] = fma_(window.tap[k], v_x_xx.at[2 * s], g[0][j]);
          g[1][j] = fma_(window.tap[k], v_x_xx.at[2 * s + 1], g[1][j]);
          g[2][j] = fma_(window.tap[k], v_xy.at[s], g[2][j]);
        }
      }
    }
#pragma unroll
    for (int q = 0; q < 3; ++q) {
#pragma unroll
      for (int j = 0; j < kPixels; ++j) g[q][j] = down(gradients_[q][j], g[q][j]);
    }
    difference(w, image, target);
#pragma unroll
    for (int j = 0; j < kPixels; ++j) {
      const float v = fma_(2 * image[j], g[1][j], fma_(target[j], g[2][j], g[0][j]));
      if (out >= y0_ && inside(x0 + j)) (a_.ssim_gradient + at)[column + j * channels()] = v;
    }
  }

  // Sum of the weights of a pixel's rows.
  __device__ float weight(int begin, int end, int x) const {
    if (begin >= end) return 0;
    if (!a_.mask) return float(end - begin);
    float sum = 0;
    for (int y = begin; y < end; ++y) sum += a_.mask[row_of(y) + x];
    return sum;
  }

  // A pixel's few rows are exact enough in single precision; doubles are slow on many cards.
  __device__ Sums sums() const {
    const int slot = lane_ - (kGradient ? S::kMargin : 0), x0 = x_of_moments();
    const bool own = role_ == 0 && slot >= 0 && slot < S::kOwn;
    Sums sums = {kGradient || own ? double(l1_) : 0, own ? double(ssim_) : 0, 0, 0};
    if (!own) return sums;
    for (int x = x0; x < x0 + kPixels; ++x) {
      if (inside(x)) sums.weight_l1 += double(weight(y0_, y1_, x));
      if (counts(x)) sums.weight_ssim += double(weight(max(y0_, a_.border), min(y1_, height() - a_.border), x));
    }
    return sums;
  }

  const Args& a_;
  Row* row_;       // [2]
  int64_t pixel_;  // the image's first
  int channel_;    // where channels are walked one by one
  int lane_, role_, y0_, y1_;
  Numbers<2 * kPixels> next_[2];
  float moments_[4][kPixels][kTaps - 1] = {}, gradients_[3][kPixels][kTaps - 1] = {};
  float l1_ = 0, ssim_ = 0;
};

// blocks: [gridDim] out, the sums of each strip.
template <int kStep, bool kGradient>
__global__ void __launch_bounds__(Strip<kStep, kGradient>::kRoles * Strip<kStep, kGradient>::kLanes, Strip<kStep, kGradient>::kBlocks)
    photometric_fwd_kernel(Args a, int rows, Sums* blocks) {
  using S = Strip<kStep, kGradient>;
  GAF_SHARED(typename S::Row, row, [2]);
  GAF_SHARED(double, partial, [kWarp]);
  Sums sums = Walk<kStep, kGradient>(a, rows, row).run();
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
  using S = Strip<kStep, kGradient>;
  const char* name = "photometric_loss_fwd";
  constexpr int kOwn = S::kOwn / kStep * S::kPixels;  // pixels
  const int64_t strips = (a.width + kOwn - 1) / kOwn, images = kStep > 1 ? a.n_images : a.n_images * a.channels;
  const int rows = strip_rows(a.height, strips * images, 2 * S::kAbove, S::kBlocks * multiprocessors(stream.device));
  const dim3 grid(unsigned(strips), unsigned(rows > 0 ? (a.height + rows - 1) / rows : 0), unsigned(images));
  if (images > 65535) {
    throw std::invalid_argument("photometric_loss: on a GPU at most 65535 images at a time, or images times channels where there are not 1 or 3; got " +
                                std::to_string(images));
  }
  const int64_t n = int64_t(grid.x) * grid.y * grid.z;
  Sums* blocks = stream.scratch<Sums>(n);
  launch(name, photometric_fwd_kernel<kStep, kGradient>, grid, S::kRoles * S::kLanes, 0, stream, a, rows, blocks);
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
