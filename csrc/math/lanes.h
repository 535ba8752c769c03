// The few functions that formulas need beyond arithmetic, for one value. A vector type brings overloads of the same names (cpu/simd.h), so
// that a formula of this folder runs on one value or on sixteen.
#pragma once
#include <cmath>
#include <cstdint>

#include "macros.h"

namespace gaf {

#define GAF_LANES(T)                                                     \
  GAF_HD T select_(bool c, T a, T b) { return c ? a : b; }               \
  GAF_HD T min_(T a, T b) { return a < b ? a : b; }                      \
  GAF_HD T max_(T a, T b) { return a > b ? a : b; }                      \
  GAF_HD T sqrt_(T a) { return std::sqrt(a); }                           \
  GAF_HD T log2_(T a) { return std::log2(a); }
GAF_LANES(float)
GAF_LANES(double)
#undef GAF_LANES

#if defined(__CUDA_ARCH__)
// One instruction each. The approximations err by 2 units in the last place, and forward and backward call the same ones.
GAF_HD float fma_(float a, float b, float c) { return __fmaf_rn(a, b, c); }
GAF_HD float exp2_(float a) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(a));
  return r;
}
GAF_HD float reciprocal_(float a) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(a));
  return r;
}
#else
GAF_HD float fma_(float a, float b, float c) { return a * b + c; }
GAF_HD float exp2_(float a) { return std::exp2(a); }
GAF_HD float reciprocal_(float a) { return 1 / a; }
#endif
GAF_HD double fma_(double a, double b, double c) { return a * b + c; }
GAF_HD double exp2_(double a) { return std::exp2(a); }
GAF_HD double reciprocal_(double a) { return 1 / a; }

// Where an error of 2 units in the last place does not matter: on a GPU an instruction or two instead of a dozen and as many registers.
template <class T>
GAF_HD T rough_sqrt_(T a) { return sqrt_(a); }
template <class T>
GAF_HD T rough_divide_(T a, T b) { return a / b; }
#if defined(__CUDA_ARCH__)
GAF_HD float rough_sqrt_(float a) {
  float r;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(a));
  return r;
}
GAF_HD float rough_divide_(float a, float b) { return __fdividef(a, b); }
#endif

GAF_HD bool both_(bool a, bool b) { return a && b; }

}  // namespace gaf
