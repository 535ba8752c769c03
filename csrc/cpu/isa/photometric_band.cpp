// One sweep down a band, four rows at a time: rows are blurred sideways into a ring of 16, the ring is blurred downwards to moments, moments
// give SSIM and its derivatives, and these go through a second ring to the gradient of the image, ten rows behind the first read. Each row is
// computed the same way whatever the band, so bands may be cut anywhere; a row outside of the image is zero.
#include "cpu/photometric_band.h"

#include <cmath>

#include "number.h"

namespace gaf::cpu::GAF_ISA {
namespace {

#define GAF_INLINE __attribute__((always_inline)) inline

enum { kX, kY, kSquares, kProduct, kMoments };  // SsimMoments
constexpr int kGrads = 3;                       // SsimGrad
constexpr int kRows = kSsimRows;
constexpr int kReach = kRows + kSsimTaps - 1;  // rows that kRows blurred rows look at
constexpr int64_t kStrip = 256;                // numbers; a strip's moments stay in the first-level cache

template <class T>
GAF_INLINE T window(int tap) {
  return T(kSsimWindow[tap < kSsimRadius ? kSsimRadius - tap : tap - kSsimRadius]);
}

template <class T>
GAF_INLINE void fill(T* __restrict out, int64_t n, T value) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) out[i] = value;
}

// A padded row of pixels of `step` channels, blurred sideways.
template <class T>
GAF_INLINE void blur_across(const T* __restrict in, int64_t step, T* __restrict out, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    T total = 0;
#pragma GCC unroll 11
    for (int k = 0; k < kSsimTaps; ++k) total += window<T>(k) * in[i + k * step];
    out[i] = total;
  }
}

// kRows rows, each the blur of 11 of the kReach rows at in[k] + offset: a row is loaded once for all.
template <class T>
GAF_INLINE void blur_down(const T* const* in, int64_t offset, T* __restrict out, int64_t n) {
  static_assert(kRows == 4);
  const T* rows[kReach];
  for (int k = 0; k < kReach; ++k) rows[k] = in[k] + offset;
  T *__restrict a = out, *__restrict b = a + kStrip, *__restrict c = b + kStrip, *__restrict d = c + kStrip;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    T sums[kRows] = {0, 0, 0, 0};
#pragma GCC unroll 14
    for (int k = 0; k < kReach; ++k) {
      const T value = rows[k][i];
#pragma GCC unroll 4
      for (int j = 0; j < kRows; ++j) {
        if (k >= j && k - j < kSsimTaps) sums[j] += window<T>(k - j) * value;
      }
    }
    a[i] = sums[0];
    b[i] = sums[1];
    c[i] = sums[2];
    d[i] = sums[3];
  }
}

// In lanes, so that it vectorises without reassociation; in blocks, so that float lanes stay short.
template <class T>
GAF_INLINE double sum(const T* __restrict in, int64_t n) {
  constexpr int kLanes = 16, kBlock = 1024;
  double total = 0;
  int64_t i = 0;
  while (n - i >= kLanes) {
    T lanes[kLanes] = {};
    const int64_t end = i + (n - i < kBlock ? (n - i) / kLanes * kLanes : kBlock);
    for (; i < end; i += kLanes) {
      for (int k = 0; k < kLanes; ++k) lanes[k] += in[i + k];
    }
    for (int k = 0; k < kLanes; ++k) total += lanes[k];
  }
  for (; i < n; ++i) total += in[i];
  return total;
}

template <class T>
struct Sweep {
  const PhotometricBand<T>& band;
  const PhotometricLossArgs<T>& a;
  int64_t row, pad, padded;  // numbers in a row of pixels, in a margin of the window's radius, in a row with both margins
  T *products, *grads, *weights, *strip, *values, *moment_ring, *grad_ring;

  GAF_INLINE explicit Sweep(const PhotometricBand<T>& band)
      : band(band), a(*band.args), row(a.width * a.channels), pad(kSsimRadius * a.channels), padded(row + 2 * pad) {
    products = band.scratch;                                // [4, padded] x, y, x^2 + y^2, xy of one row
    grads = products + kMoments * padded;                   // [rows, 3, padded]
    weights = grads + kRows * kGrads * padded;              // [rows, row]
    values = weights + kRows * row;                         // [row] weighted |x - y|
    strip = values + row;                                   // [5, rows, kStrip] moments or gradients, and weighted SSIM
    moment_ring = strip + (kMoments + 1) * kRows * kStrip;  // [4, 16, row]
    grad_ring = moment_ring + kMoments * kSsimRing * row;   // [3, 16, row]
    fill(products, (kMoments + kRows * kGrads) * padded, T(0));  // the margins stay zero
  }

  GAF_INLINE bool in_image(int64_t r) const { return r >= 0 && r < a.height; }
  GAF_INLINE bool in_band(int64_t r) const { return r >= band.begin && r < band.end; }
  GAF_INLINE const T* pixels(const T* image, int64_t r) const { return image + (band.image * a.height + r) * row; }
  GAF_INLINE T* grad_row(int j, int g) const { return grads + (j * kGrads + g) * padded; }
  // r >= -32
  GAF_INLINE T* slot(T* ring, int quantity, int64_t r) const { return ring + (quantity * kSsimRing + (r + 2 * kSsimRing) % kSsimRing) * row; }

  // The rows that the blur of rows r to r + 3 needs.
  GAF_INLINE void window_rows(T* ring, int quantity, int64_t r, const T** out) const {
    for (int k = 0; k < kReach; ++k) out[k] = slot(ring, quantity, r + k - kSsimRadius);
  }

  GAF_INLINE void clear(T* ring, int quantities, int64_t r) const {
    for (int q = 0; q < quantities; ++q) fill(slot(ring, q, r), row, T(0));
  }

  GAF_INLINE void read(int64_t r) const {
    if (!in_image(r)) return clear(moment_ring, kMoments, r);
    const T *__restrict x = pixels(a.image, r), *__restrict y = pixels(a.target, r);
    T *__restrict px = products + pad, *__restrict py = px + padded, *__restrict squares = py + padded, *__restrict product = squares + padded;
#pragma GCC ivdep
    for (int64_t i = 0; i < row; ++i) {
      px[i] = x[i];
      py[i] = y[i];
      squares[i] = x[i] * x[i] + y[i] * y[i];
      product[i] = x[i] * y[i];
    }
    for (int q = 0; q < kMoments; ++q) blur_across(products + q * padded, a.channels, slot(moment_ring, q, r), row);
  }

  // The mask of row r, once for each channel.
  GAF_INLINE void read_weights(int64_t r, T* weight) const {
    if (!a.mask) return fill(weight, row, T(1));
    const T* mask = a.mask + (band.image * a.height + r) * a.width;
    for (int64_t x = 0; x < a.width; ++x) {
      for (int64_t c = 0; c < a.channels; ++c) weight[x * a.channels + c] = mask[x];
    }
  }

  // SSIM has no weight near the border of the image.
  GAF_INLINE void cut_border(int64_t r, T* weight) const {
    if (a.border == 0) return;
    if (r < a.border || r >= a.height - a.border) return fill(weight, row, T(0));
    fill(weight, a.border * a.channels, T(0));
    fill(weight + row - a.border * a.channels, a.border * a.channels, T(0));
  }

  GAF_INLINE void sum_l1(int64_t r, const T* __restrict weight, RowSums& sums) const {
    const T *__restrict x = pixels(a.image, r), *__restrict y = pixels(a.target, r);
    T* __restrict out = values;
#pragma GCC ivdep
    for (int64_t i = 0; i < row; ++i) out[i] = weight[i] * std::fabs(x[i] - y[i]);
    sums.l1 = sum(values, row);
    sums.weight_l1 = sum(weight, row);
  }

  // Numbers [begin, begin + n) of a row: weighted SSIM to `ssim`, derivatives to the row's gradients where they are needed.
  GAF_INLINE void compare_strip(int j, int64_t begin, int64_t n, T* __restrict ssim) const {
    const T *__restrict mx = strip + j * kStrip, *__restrict my = mx + kRows * kStrip, *__restrict squares = my + kRows * kStrip,
                       *__restrict product = squares + kRows * kStrip, *__restrict w = weights + j * row + begin;
    T *__restrict v_x = grad_row(j, 0) + pad + begin, *__restrict v_xx = v_x + padded, *__restrict v_xy = v_xx + padded;
    if (!a.ssim_gradient) {
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) ssim[i] = w[i] * ssim_terms(SsimMoments<T>{mx[i], my[i], squares[i], product[i]}).value;
      return;
    }
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      const SsimMoments<T> m = {mx[i], my[i], squares[i], product[i]};
      const SsimTerms<T> s = ssim_terms(m);
      const SsimGrad<T> g = ssim_vjp(m, s, w[i]);
      ssim[i] = w[i] * s.value;
      v_x[i] = g.v_x;
      v_xx[i] = g.v_xx;
      v_xy[i] = g.v_xy;
    }
  }

  // Rows r to r + 3: weights, sums, and derivatives into the second ring.
  GAF_INLINE void compare(int64_t r) const {
    for (int j = 0; j < kRows; ++j) {
      T* weight = weights + j * row;
      if (!in_image(r + j)) continue;
      read_weights(r + j, weight);
      if (in_band(r + j)) sum_l1(r + j, weight, band.sums[r + j - band.begin]);
      cut_border(r + j, weight);
      if (in_band(r + j)) band.sums[r + j - band.begin].weight_ssim = sum(weight, row);
    }
    const T* in[kMoments][kReach];
    for (int q = 0; q < kMoments; ++q) window_rows(moment_ring, q, r, in[q]);
    T* ssim = strip + kMoments * kRows * kStrip;
    for (int64_t begin = 0; begin < row; begin += kStrip) {
      const int64_t n = row - begin < kStrip ? row - begin : kStrip;
      for (int q = 0; q < kMoments; ++q) blur_down(in[q], begin, strip + q * kRows * kStrip, n);
      for (int j = 0; j < kRows; ++j) {
        if (!in_image(r + j)) continue;
        compare_strip(j, begin, n, ssim);
        if (in_band(r + j)) band.sums[r + j - band.begin].ssim += sum(ssim, n);
      }
    }
    if (!a.ssim_gradient) return;
    for (int j = 0; j < kRows; ++j) {
      if (!in_image(r + j)) {
        clear(grad_ring, kGrads, r + j);
        continue;
      }
      for (int g = 0; g < kGrads; ++g) blur_across(grad_row(j, g), a.channels, slot(grad_ring, g, r + j), row);
    }
  }

  // Rows r to r + 3, those that lie in the band.
  GAF_INLINE void write_gradient(int64_t r) const {
    const T* in[kGrads][kReach];
    for (int g = 0; g < kGrads; ++g) window_rows(grad_ring, g, r, in[g]);
    for (int64_t begin = 0; begin < row; begin += kStrip) {
      const int64_t n = row - begin < kStrip ? row - begin : kStrip;
      for (int g = 0; g < kGrads; ++g) blur_down(in[g], begin, strip + g * kRows * kStrip, n);
      for (int j = 0; j < kRows; ++j) {
        if (!in_band(r + j)) continue;
        const T *__restrict x = pixels(a.image, r + j) + begin, *__restrict y = pixels(a.target, r + j) + begin;
        const T *__restrict v_x = strip + j * kStrip, *__restrict v_xx = v_x + kRows * kStrip, *__restrict v_xy = v_xx + kRows * kStrip;
        T* __restrict out = a.ssim_gradient + (band.image * a.height + r + j) * row + begin;
#pragma GCC ivdep
        for (int64_t i = 0; i < n; ++i) out[i] = v_x[i] + 2 * x[i] * v_xx[i] + y[i] * v_xy[i];
      }
    }
  }

  GAF_INLINE void run() const {
    const int64_t halo = a.ssim_gradient ? kSsimRadius : 0;  // rows beyond the band whose derivatives reach into it
    for (int64_t r = band.begin - halo - kSsimRadius; r < band.end + halo + kSsimRadius; r += kRows) {
      for (int j = 0; j < kRows; ++j) read(r + j);
      const int64_t q = r - kSsimRadius, p = q - kSsimRadius;
      if (q + kRows > band.begin - halo) compare(q);
      if (a.ssim_gradient && p + kRows > band.begin && p < band.end) write_gradient(p);
    }
  }
};

}  // namespace

template <class T>
void photometric_band(const PhotometricBand<T>& band) { Sweep<T>(band).run(); }

template void photometric_band(const PhotometricBand<Number>&);

}  // namespace gaf::cpu::GAF_ISA
