#include "ops/photometric_loss.h"

#include <algorithm>
#include <vector>

#include "isa.h"
#include "parallel.h"
#include "photometric_band.h"

namespace gaf::cpu {
namespace {

// Rows a band: neighbours read 20 rows of each other's, so bands are tall, but every thread should have one.
int64_t band_rows(int64_t height, int64_t n_images, int threads) {
  constexpr int64_t kMinRows = 64;
  const int64_t bands_per_image = std::max<int64_t>(1, (threads + n_images - 1) / n_images);
  return std::max(kMinRows, (height + bands_per_image - 1) / bands_per_image);
}

constexpr int64_t kGrain = 16384;  // numbers a chunk of the backward pass

}  // namespace

template <class T>
void photometric_loss_fwd(const PhotometricLossArgs<T>& a, int threads) {
  std::vector<RowSums> rows(a.n_images * a.height, RowSums{});
  if (a.width * a.channels > 0 && !rows.empty()) {
    const int64_t height = band_rows(a.height, a.n_images, threads), bands = (a.height + height - 1) / height;
    std::vector<std::vector<T>> scratch(std::max(threads, 1));
    parallel_for(bands * a.n_images, 1, threads, [&](int64_t begin, int64_t end, int worker) {
      scratch[worker].resize(photometric_scratch(a));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t image = i / bands, first = i % bands * height;
        const PhotometricBand<T> band{&a, image, first, std::min(first + height, a.height), scratch[worker].data(), rows.data() + image * a.height + first};
        GAF_DISPATCH_NUMBER(T, photometric_band<T>)(band);
      }
    });
  }
  RowSums total{};
  for (const RowSums& r : rows) {
    total.l1 += r.l1;
    total.ssim += r.ssim;
    total.weight_l1 += r.weight_l1;
    total.weight_ssim += r.weight_ssim;
  }
  // Nothing to compare: no difference.
  *a.l1 = T(total.weight_l1 == 0 ? 0 : total.l1 / total.weight_l1);
  *a.ssim = T(total.weight_ssim == 0 ? 1 : total.ssim / total.weight_ssim);
  a.weights[0] = T(total.weight_l1);
  a.weights[1] = T(total.weight_ssim);
}

template <class T>
void photometric_loss_bwd(const PhotometricLossArgs<T>& a, int threads) {
  const T v_l1 = a.weights[0] == 0 ? T(0) : *a.v_l1 / a.weights[0], v_ssim = a.weights[1] == 0 ? T(0) : *a.v_ssim / a.weights[1];
  if (a.channels == 0) return;
  const int64_t channels = a.channels, n_pixels = a.n_images * a.height * a.width;
  parallel_for(n_pixels, std::max<int64_t>(kGrain / channels, 1), threads, [&](int64_t begin, int64_t end, int) {
    const T *__restrict x = a.image, *__restrict y = a.target, *__restrict g = a.ssim_gradient, *__restrict mask = a.mask;
    T* __restrict out = a.v_image;
    const auto slope = [](T d, T v) { return d > 0 ? v : d < 0 ? -v : T(0); };
    if (!mask) {
      for (int64_t i = begin * channels; i < end * channels; ++i) out[i] = slope(x[i] - y[i], v_l1) + v_ssim * g[i];
      return;
    }
    for (int64_t p = begin; p < end; ++p) {
      for (int64_t i = p * channels; i < (p + 1) * channels; ++i) out[i] = slope(x[i] - y[i], v_l1 * mask[p]) + v_ssim * g[i];
    }
  });
}

template void photometric_loss_fwd(const PhotometricLossArgs<float>&, int);
template void photometric_loss_fwd(const PhotometricLossArgs<double>&, int);
template void photometric_loss_bwd(const PhotometricLossArgs<float>&, int);
template void photometric_loss_bwd(const PhotometricLossArgs<double>&, int);

}  // namespace gaf::cpu
