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
constexpr int kSsimRows = 4;   // rows a step
constexpr int kSsimRing = 16;  // rows of a ring: four new ones and the ten before

// Numbers of scratch memory a band needs; Sweep of isa/photometric_band.cpp lays them out.
template <class T>
GAF_HD int64_t photometric_scratch(const PhotometricLossArgs<T>& a) {
  constexpr int64_t kStripNumbers = 5 * kSsimRows * 256;
  const int64_t row = a.width * a.channels, padded = row + 2 * kSsimRadius * a.channels;
  return (4 + 3 * kSsimRows) * padded + (kSsimRows + 1) * row + kStripNumbers + 7 * kSsimRing * row;
}

#define GAF_DECLARE_BAND(isa)                                  \
  namespace isa {                                              \
  template <class T>                                           \
  void photometric_band(const PhotometricBand<T>&);            \
  }
GAF_DECLARE_BAND(baseline)
GAF_DECLARE_BAND(avx2)
GAF_DECLARE_BAND(avx512)
GAF_DECLARE_BAND(float64)
#undef GAF_DECLARE_BAND

}  // namespace gaf::cpu
