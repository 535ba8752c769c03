// Half-precision numbers as they lie in memory.
#pragma once
#include <cstdint>
#include <cstring>

#include "launch.h"

namespace gaf::cuda {

__device__ __forceinline__ float half_to_float(uint16_t bits) {
  float value;
#if defined(__CUDA_ARCH__)
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
#elif defined(GAF_SIMT)
  _Float16 half;
  std::memcpy(&half, &bits, sizeof(half));
  value = float(half);
#else
  value = 0;  // nvcc's pass over the host's half of a source, which never calls this
#endif
  return value;
}

}  // namespace gaf::cuda
