// Structural similarity (Wang et al., 2004) from windowed moments, and its derivatives.
#pragma once
#include "lanes.h"
#include "macros.h"

namespace gaf {

constexpr int kSsimRadius = 5;  // pixels; 11 taps
// exp(-k^2 / (2 1.5^2)) / sum: the window of the original and of every later implementation. Index = distance from the centre.
constexpr double kSsimWindow[kSsimRadius + 1] = {0.2660117248617943,   0.21300553771125366,  0.1093606895097,
                                                 0.03600077212843082, 0.007598758135239184, 0.0010283800844791099};
constexpr double kSsimC1 = 0.01 * 0.01, kSsimC2 = 0.03 * 0.03;  // for images in 0..1

// x and y only enter the denominator by their sum of squares, so four moments do instead of five.
template <class T>
struct SsimMoments {
  T x, y;      // E[x], E[y]
  T xx_yy;     // E[x^2 + y^2]
  T xy;        // E[xy]
};

template <class T>
struct SsimTerms {
  T value;
  T luminance, structure;          // numerators: 2 mx my + c1, 2 cov + c2
  T inverse_means, inverse_spread;  // 1 / (mx^2 + my^2 + c1), 1 / (var_x + var_y + c2)
};

template <class T>
GAF_HD SsimTerms<T> ssim_terms(const SsimMoments<T>& m) {
  const T c1 = T(kSsimC1), c2 = T(kSsimC2);
  const T means = m.x * m.x + m.y * m.y, product = m.x * m.y;
  SsimTerms<T> s;
  s.luminance = 2 * product + c1;
  s.structure = 2 * (m.xy - product) + c2;
  const T a = means + c1, b = m.xx_yy - means + c2, inverse = reciprocal_(a * b);  // one division for both
  s.inverse_means = inverse * b;
  s.inverse_spread = inverse * a;
  s.value = s.luminance * s.structure * inverse;
  return s;
}

template <class T>
struct SsimGrad {
  T v_x, v_xx, v_xy;  // with respect to E[x], E[x^2] and E[xy]
};

// The gradient of x at a pixel is the window's sum of v_x + 2 x v_xx + y v_xy over the pixels whose windows contain it.
template <class T>
GAF_HD SsimGrad<T> ssim_vjp(const SsimMoments<T>& m, const SsimTerms<T>& s, T v_value) {
  const T scale = v_value * s.inverse_means * s.inverse_spread;
  const T v_xy = 2 * scale * s.luminance;
  const T v_xx = -v_value * s.value * s.inverse_spread;
  const T v_mean = 2 * scale * m.y * (s.structure - s.luminance) - 2 * m.x * (v_value * s.value * s.inverse_means + v_xx);
  return {v_mean, v_xx, v_xy};
}

}  // namespace gaf
