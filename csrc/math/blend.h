// Splats on the screen: their shape, their alpha at a pixel, front-to-back compositing, and the way back.
//
// A splat is kept in whitened form: u = u_x dx + u_y dy, v = v_y dy, so that log2(alpha) = log2_opacity - u^2 - v^2. The conic (inverse
// covariance) is 2 ln2 L^T L with L = [[u_x, u_y], [0, v_y]].
#pragma once
#include "constants.h"
#include "gaussian.h"
#include "lanes.h"

namespace gaf {

template <class T>
struct Whitening {
  T u_x, u_y, v_y;
};

// From the covariance and its determinant, without cancellation: v_y^2 ~ 1/yy, u_x^2 ~ yy/det.
template <class T>
GAF_HD Whitening<T> whitening(T xy, T yy, T det) {
  const T u_x = sqrt_(T(kLog2E / 2) * yy / det);
  return {u_x, -u_x * xy / yy, sqrt_(T(kLog2E / 2) / yy)};
}

// Half the side of the box around the pixels where alpha reaches the cut, in standard deviations; 0 where it nowhere does.
template <class T>
GAF_HD T extent(T log2_opacity) {
  return sqrt_(max_(T(2 * kLn2) * (log2_opacity - T(kLog2AlphaMin)), T(0)));
}

// u = u_x x + u_y y + u_0 and v = v_y y + v_0 for pixels counted from an origin from which the mean is (x, y) away.
template <class T>
struct WhitenedOrigin {
  T u_0, v_0;
};

template <class T>
GAF_HD WhitenedOrigin<T> whitened_origin(const Whitening<T>& w, T x, T y) {
  return {-fma_(w.u_x, x, w.u_y * y), -w.v_y * y};
}

// Also returns the pixel's u and v.
template <class T>
GAF_HD T log2_alpha(const Whitening<T>& w, const WhitenedOrigin<T>& o, T log2_opacity, T x, T y, T& u, T& v) {
  u = fma_(w.u_x, x, fma_(w.u_y, y, o.u_0));
  v = fma_(w.v_y, y, o.v_0);
  return fma_(-v, v, fma_(-u, u, log2_opacity));
}

// One splat over one pixel: T is what is left of the light. `weight` is alpha T, 0 where alpha is below the cut.
template <class T>
GAF_HD T blend_weight(T power, T transmittance) {
  return select_(power >= T(kLog2AlphaMin), exp2_(min_(power, T(kLog2AlphaMax))) * transmittance, T(0));
}

template <class T>
struct BlendGrad {
  T weight;       // alpha T: what a colour's gradient is multiplied with
  T alpha_times;  // alpha v_alpha, 0 where alpha is cut or capped
};

// Front to back: transmittance is that before this splat, `rest` what the pixel's gradient still expects from here on (sum over the splats from
// this one on of weight colour . v_colour, plus the background's share); both are moved behind this splat. shade = colour . v_colour.
template <class T>
GAF_HD BlendGrad<T> blend_vjp(T power, T shade, T& transmittance, T& rest) {
  const auto hit = power >= T(kLog2AlphaMin);
  const T alpha = select_(hit, exp2_(min_(power, T(kLog2AlphaMax))), T(0));
  const T weight = alpha * transmittance, lit = weight * shade;
  transmittance = transmittance - weight;
  rest = rest - lit;
  const T v = fma_(-rest * alpha, reciprocal_(1 - alpha), lit);
  return {weight, select_(power < T(kLog2AlphaMax), v, T(0))};
}

// Sums over pixels of alpha_times x {1, u, v, u^2, u v, v^2}: all that the shape's gradient needs.
template <class T>
struct Moments {
  T one, u, v, uu, uv, vv;
};

// Gradients of mean and covariance from the moments. d log2(alpha) = -2 (u du + v dv), dalpha = ln2 alpha dlog2(alpha).
template <class T>
GAF_HD ScreenGrad<T> moments_vjp(const Whitening<T>& w, const Moments<T>& m) {
  const T a = T(2 * kLn2), b = T(2 * kLn2 * kLn2);
  ScreenGrad<T> g;
  g.x = a * w.u_x * m.u;
  g.y = a * (w.u_y * m.u + w.v_y * m.v);
  // v_cov = 2 ln2^2 L^T G L with G the second moments.
  const T gu = w.u_y * m.uu + w.v_y * m.uv, gv = w.u_y * m.uv + w.v_y * m.vv;
  g.xx = b * w.u_x * w.u_x * m.uu;
  g.xy = 2 * b * w.u_x * gu;
  g.yy = b * (w.u_y * gu + w.v_y * gv);
  g.depth = T(0);
  return g;
}

}  // namespace gaf
