// A band of rows of photometric_loss: the part that is compiled for each instruction set.
#pragma once
#include <cstdint>

#include "math/macros.h"
#include "math/ssim.h"
#include "ops/photometric_loss.h"

namespace gaf::cpu {

struct RowSums {
  double l1, ssim, weight_l1, weight_ssim;
};

template <class T>
struct PhotometricBand {
  const PhotometricLossArgs<T>* args;
  int64_t image;       // number
  int64_t begin, end;  // rows
  T* scratch;          // photometric_scratch(args) numbers
  RowSums* sums;       // [end - begin] out
};

constexpr int kSsimTaps = 2 * kSsimRadius + 1;

// Row buffers of a band: 4 padded rows of the inputs' products, 3 padded rows of gradients, 7 plain rows, rings of 11 rows for 4 moments and
// 3 gradients.
template <class T>
GAF_HD int64_t photometric_scratch(const PhotometricLossArgs<T>& a) {
  const int64_t row = a.width * a.channels, padded = row + 2 * kSsimRadius * a.channels;
  return 7 * padded + 7 * row + 7 * kSsimTaps * row;
}

#define GAF_DECLARE_BAND(isa)                                  \
  namespace isa {                                              \
  void photometric_band_f32(const PhotometricBand<float>&);    \
  void photometric_band_f64(const PhotometricBand<double>&);   \
  }
GAF_DECLARE_BAND(baseline)
GAF_DECLARE_BAND(avx2)
GAF_DECLARE_BAND(avx512)
#undef GAF_DECLARE_BAND

}  // namespace gaf::cpu
