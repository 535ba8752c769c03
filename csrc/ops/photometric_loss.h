// Contract of photometric_loss: what every backend reads and writes.
#pragma once
#include <cstdint>

#include "stream.h"

namespace gaf {

template <class T>
struct PhotometricLossArgs {
  int64_t n_images, height, width, channels;
  int32_t border;     // pixels from each side of the image where SSIM does not count: 0, or the window's radius
  const T* image;     // [B, H, W, C]
  const T* target;    // [B, H, W, C]
  const T* mask;      // [B, H, W] weights, or null for ones
  T* l1;              // [] out
  T* ssim;            // [] out
  T* weights;         // [2] out (backward: in): sums of the weights of l1 and ssim, over pixels and channels
  T* ssim_gradient;   // [B, H, W, C] out (backward: in): of ssim times its weight with respect to image; or null when not needed
  // backward only
  const T* v_l1;    // []
  const T* v_ssim;  // []
  T* v_image;       // [B, H, W, C] out
};

namespace cpu {
template <class T>
void photometric_loss_fwd(const PhotometricLossArgs<T>& a, int threads);
template <class T>
void photometric_loss_bwd(const PhotometricLossArgs<T>& a, int threads);
}  // namespace cpu

namespace cuda {
void photometric_loss_fwd(const PhotometricLossArgs<float>& a, Stream stream);
void photometric_loss_bwd(const PhotometricLossArgs<float>& a, Stream stream);
}  // namespace cuda

}  // namespace gaf
