// Where a splat ends: the ellipse alpha = 1/255, and what it covers of a slab of pixel rows. Exact up to rounding.
//
// In whitened form the ellipse is u^2 + v^2 <= reach^2, so at height y it spans x = (+-sqrt(reach^2 - (v_y y)^2) - u_y y) / u_x. Inside a slab
// the span is widest at the y of the ellipse's side, or at the slab's edge where the side lies outside.
#pragma once
#include "blend.h"

namespace gaf {

constexpr double kEllipseSlack = 1e-3;  // pixels; what rounding may move

template <class T>
struct Ellipse {
  T x, y;                 // centre, pixels
  T inv_u_x, slant, v_y;  // slant = u_y / u_x
  T reach2;
  T side_y, half_height;  // y of the rightmost point and of the topmost, from the centre
};

template <class T>
GAF_HD Ellipse<T> ellipse_of(T x, T y, const Whitening<T>& w, T log2_opacity) {
  Ellipse<T> e;
  e.x = x;
  e.y = y;
  e.inv_u_x = rough_divide_(T(1), w.u_x);
  e.slant = w.u_y * e.inv_u_x;
  e.v_y = w.v_y;
  e.reach2 = max_(log2_opacity - T(kLog2AlphaMin), T(0));
  const T reach = rough_sqrt_(e.reach2);
  e.half_height = rough_divide_(reach, e.v_y);
  e.side_y = rough_divide_(-w.u_y * e.half_height, rough_sqrt_(fma_(w.u_y, w.u_y, e.v_y * e.v_y)));
  return e;
}

// Half the width of the ellipse at height y.
template <class T>
GAF_HD T half_width(const Ellipse<T>& e, T y) {
  const T v = e.v_y * y;
  return rough_sqrt_(max_(fma_(-v, v, e.reach2), T(0))) * e.inv_u_x;
}

template <class T>
struct EllipseSpan {
  T left, right;         // pixels, with the slack
  T top, bottom;         // of the slab within the ellipse, from its centre; they do not meet where top > bottom + slack
};

// Rows of pixel centres from `top` to `bottom`, from the ellipse's centre.
template <class T>
GAF_HD EllipseSpan<T> ellipse_in_slab(const Ellipse<T>& e, T top, T bottom) {
  const T lo = max_(top, -e.half_height), hi = min_(bottom, e.half_height);
  const T right_y = min_(max_(e.side_y, lo), hi), left_y = min_(max_(-e.side_y, lo), hi);
  return {e.x - (half_width(e, left_y) + e.slant * left_y) - T(kEllipseSlack),
          e.x + (half_width(e, right_y) - e.slant * right_y) + T(kEllipseSlack), lo, hi};
}

}  // namespace gaf
