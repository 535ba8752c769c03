// One sweep down a band: rows are blurred sideways into a ring of 11, the ring is blurred downwards to moments, moments give SSIM and its
// derivatives, and these go through a second ring to the gradient of the image, ten rows behind the first read. Each row is computed the same
// way whatever the band, so bands may be cut anywhere; a row outside of the image is zero.
#include "cpu/photometric_band.h"

#include <cmath>

namespace gaf::cpu::GAF_ISA {
namespace {

#define GAF_INLINE __attribute__((always_inline)) inline

enum { kX, kY, kSquares, kProduct, kMoments };  // moments
constexpr int kGrads = 3;                       // v_x, v_xx, v_xy of SsimGrad

template <class T>
GAF_INLINE void fill(T* __restrict out, int64_t n, T value) {
  for (int64_t i = 0; i < n; ++i) out[i] = value;
}

// out[i] = sum_k w[|k|] in_k[i], where in_k = taps[k + 5].
template <class T>
GAF_INLINE void blur(const T* const* taps, T* __restrict out, int64_t n) {
  const T *__restrict a = taps[0], *__restrict b = taps[1], *__restrict c = taps[2], *__restrict d = taps[3], *__restrict e = taps[4],
          *__restrict f = taps[5], *__restrict g = taps[6], *__restrict h = taps[7], *__restrict p = taps[8], *__restrict q = taps[9],
          *__restrict r = taps[10];
  const T w0 = T(kSsimWindow[0]), w1 = T(kSsimWindow[1]), w2 = T(kSsimWindow[2]), w3 = T(kSsimWindow[3]), w4 = T(kSsimWindow[4]),
          w5 = T(kSsimWindow[5]);
  for (int64_t i = 0; i < n; ++i) {
    out[i] = w0 * f[i] + w1 * (e[i] + g[i]) + w2 * (d[i] + h[i]) + w3 * (c[i] + p[i]) + w4 * (b[i] + q[i]) + w5 * (a[i] + r[i]);
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
  int64_t row, pad;  // numbers in a row of pixels, and in a margin of the window's radius
  T *products, *grads, *moments, *weight, *values, *moment_ring, *grad_ring;

  GAF_INLINE explicit Sweep(const PhotometricBand<T>& band)
      : band(band), a(*band.args), row(a.width * a.channels), pad(kSsimRadius * a.channels) {
    products = band.scratch;                       // [4, pad + row + pad]
    grads = products + kMoments * padded();        // [3, pad + row + pad]
    moments = grads + kGrads * padded();           // [4, row], later the 3 blurred gradients
    weight = moments + kMoments * row;             // [row] of ssim
    values = weight + row;                         // [row] weighted l1, then ssim
    moment_ring = values + 2 * row;                // [4, 11, row]
    grad_ring = moment_ring + kMoments * kSsimTaps * row;  // [3, 11, row]
    fill(products, (kMoments + kGrads) * padded(), T(0));  // the margins stay zero
  }

  GAF_INLINE int64_t padded() const { return row + 2 * pad; }
  GAF_INLINE bool in_image(int64_t r) const { return r >= 0 && r < a.height; }
  GAF_INLINE const T* pixels(const T* image, int64_t r) const { return image + (band.image * a.height + r) * row; }
  GAF_INLINE T* slot(T* ring, int quantity, int64_t r) const {
    return ring + (quantity * kSsimTaps + (r + 4 * kSsimTaps) % kSsimTaps) * row;  // r >= -2 radius
  }

  // Sideways, from a padded row into the ring.
  GAF_INLINE void blur_across(const T* padded_row, T* out) const {
    const T* taps[kSsimTaps];
    for (int k = 0; k < kSsimTaps; ++k) taps[k] = padded_row + k * a.channels;
    blur(taps, out, row);
  }

  // Downwards, about row r of the ring.
  GAF_INLINE void blur_down(T* ring, int quantity, int64_t r, T* out) const {
    const T* taps[kSsimTaps];
    for (int k = 0; k < kSsimTaps; ++k) taps[k] = slot(ring, quantity, r + k - kSsimRadius);
    blur(taps, out, row);
  }

  GAF_INLINE void clear(T* ring, int quantities, int64_t r) const {
    for (int q = 0; q < quantities; ++q) fill(slot(ring, q, r), row, T(0));
  }

  GAF_INLINE void read(int64_t r) const {
    if (!in_image(r)) return clear(moment_ring, kMoments, r);
    const T *__restrict x = pixels(a.image, r), *__restrict y = pixels(a.target, r);
    T *__restrict px = products + pad, *__restrict py = px + padded(), *__restrict squares = py + padded(),
                  *__restrict product = squares + padded();
    for (int64_t i = 0; i < row; ++i) {
      px[i] = x[i];
      py[i] = y[i];
      squares[i] = x[i] * x[i] + y[i] * y[i];
      product[i] = x[i] * y[i];
    }
    for (int q = 0; q < kMoments; ++q) blur_across(products + q * padded(), slot(moment_ring, q, r));
  }

  // Weights of the pixels of row r: of l1 (ssim = false) or ssim.
  GAF_INLINE void read_weight(int64_t r, bool ssim) const {
    const int64_t border = ssim ? a.border : 0;
    const bool outside = r < border || r >= a.height - border;
    const T* mask = a.mask ? a.mask + (band.image * a.height + r) * a.width : nullptr;
    for (int64_t x = 0; x < a.width; ++x) {
      const T w = outside || x < border || x >= a.width - border ? T(0) : mask ? mask[x] : T(1);
      for (int64_t c = 0; c < a.channels; ++c) weight[x * a.channels + c] = w;
    }
  }

  GAF_INLINE void sum_l1(int64_t r, RowSums& sums) const {
    read_weight(r, false);
    const T *__restrict x = pixels(a.image, r), *__restrict y = pixels(a.target, r), *__restrict w = weight;
    T* __restrict out = values;
    for (int64_t i = 0; i < row; ++i) out[i] = w[i] * std::fabs(x[i] - y[i]);
    sums.l1 = sum(values, row);
    sums.weight_l1 = sum(weight, row);
  }

  // SSIM of row r into `values`, times its weight; derivatives into `grads` where they are needed.
  GAF_INLINE void compare(int64_t r) const {
    read_weight(r, true);
    for (int q = 0; q < kMoments; ++q) blur_down(moment_ring, q, r, moments + q * row);
    const T *__restrict mx = moments, *__restrict my = mx + row, *__restrict squares = my + row, *__restrict product = squares + row,
                    *__restrict w = weight;
    T *__restrict out = values, *__restrict v_x = grads + pad, *__restrict v_xx = v_x + padded(), *__restrict v_xy = v_xx + padded();
    if (!a.ssim_gradient) {
      for (int64_t i = 0; i < row; ++i) out[i] = w[i] * ssim_terms(SsimMoments<T>{mx[i], my[i], squares[i], product[i]}).value;
      return;
    }
    for (int64_t i = 0; i < row; ++i) {
      const SsimMoments<T> m = {mx[i], my[i], squares[i], product[i]};
      const SsimTerms<T> s = ssim_terms(m);
      const SsimGrad<T> g = ssim_vjp(m, s, w[i]);
      out[i] = w[i] * s.value;
      v_x[i] = g.v_x;
      v_xx[i] = g.v_xx;
      v_xy[i] = g.v_xy;
    }
  }

  GAF_INLINE void write_gradient(int64_t r) const {
    for (int q = 0; q < kGrads; ++q) blur_down(grad_ring, q, r, moments + q * row);
    const T *__restrict x = pixels(a.image, r), *__restrict y = pixels(a.target, r);
    const T *__restrict v_x = moments, *__restrict v_xx = v_x + row, *__restrict v_xy = v_xx + row;
    T* __restrict out = a.ssim_gradient + (band.image * a.height + r) * row;
    for (int64_t i = 0; i < row; ++i) out[i] = v_x[i] + 2 * x[i] * v_xx[i] + y[i] * v_xy[i];
  }

  GAF_INLINE void run() const {
    const int64_t halo = a.ssim_gradient ? kSsimRadius : 0;  // rows beyond the band whose derivatives reach into it
    for (int64_t r = band.begin - halo - kSsimRadius; r < band.end + halo + kSsimRadius; ++r) {
      read(r);
      const int64_t q = r - kSsimRadius;
      if (q < band.begin - halo) continue;
      const bool counts = q >= band.begin && q < band.end;
      if (in_image(q)) {
        if (counts) sum_l1(q, band.sums[q - band.begin]);
        compare(q);
        if (counts) {
          band.sums[q - band.begin].ssim = sum(values, row);
          band.sums[q - band.begin].weight_ssim = sum(weight, row);
        }
      }
      if (!a.ssim_gradient) continue;
      if (in_image(q)) {
        for (int g = 0; g < kGrads; ++g) blur_across(grads + g * padded(), slot(grad_ring, g, q));
      } else {
        clear(grad_ring, kGrads, q);
      }
      if (q - kSsimRadius >= band.begin) write_gradient(q - kSsimRadius);
    }
  }
};

}  // namespace

void photometric_band_f32(const PhotometricBand<float>& band) { Sweep<float>(band).run(); }
void photometric_band_f64(const PhotometricBand<double>& band) { Sweep<double>(band).run(); }

}  // namespace gaf::cpu::GAF_ISA
