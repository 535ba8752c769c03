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
  GAF_HD T fma_(T a, T b, T c) { return a * b + c; }                     \
  GAF_HD T exp2_(T a) { return std::exp2(a); }                           \
  GAF_HD T log2_(T a) { return std::log2(a); }                           \
  GAF_HD T reciprocal_(T a) { return 1 / a; }
GAF_LANES(float)
GAF_LANES(double)
#undef GAF_LANES

GAF_HD bool both_(bool a, bool b) { return a && b; }

}  // namespace gaf
