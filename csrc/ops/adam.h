// Contract of adam: one optimiser step over several tensors at once. CUDA only: on the CPU torch's own fused Adam does it.
#pragma once
#include <cstdint>

#include "stream.h"

namespace gaf {

constexpr int kAdamTensors = 24;  // a launch's parameters hold so many; more tensors take more calls

struct AdamTensor {
  int64_t n;
  float* value;           // [n] in and out
  const float* gradient;  // [n]
  float* mean;            // [n] first moment, in and out
  float* square;          // [n] second moment, in and out
  float* step;            // [1] steps done so far, in and out: on the device, so that a captured graph counts on
  const float* rate;      // [1] step size, on the device for the same reason
};

struct AdamArgs {
  int n_tensors;
  double beta1, beta2, eps;
  AdamTensor tensors[kAdamTensors];
};

namespace cuda {
void adam(const AdamArgs& a, Stream stream);
}

}  // namespace gaf
