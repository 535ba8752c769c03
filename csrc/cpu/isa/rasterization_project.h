// Sixteen Gaussians as projection reads them, shared by the way forward and the way back.
#pragma once
#include "cpu/rasterization.h"
#include "math/blend.h"
#include "math/gaussian.h"
#include "math/sh.h"
#include "transpose.h"

namespace gaf::cpu::GAF_ISA {

constexpr int kMaxColorColumns = 3 * kMaxShBases;

template <class S>
GAF_HD Vec3<Lanes<S>> broadcast(Vec3<S> a) { return {a.x, a.y, a.z}; }

template <class S>
GAF_HD PinholeCamera<Lanes<S>> broadcast(const PinholeCamera<S>& c) {
  return {{broadcast(c.rotation.c0), broadcast(c.rotation.c1), broadcast(c.rotation.c2)}, broadcast(c.translation), broadcast(c.position),
          c.fx, c.fy, c.cx, c.cy, c.x_min, c.x_max, c.y_min, c.y_max};
}

template <class S>
GAF_HD PinholeCamera<S> camera_of(const RasterizationProjectArgs<S>& a, int64_t camera) {
  return pinhole_camera(a.viewmats + 16 * camera, a.Ks + 9 * camera, int(a.width), int(a.height));
}

template <class S>
struct GaussianGroup {
  Vec3<Lanes<S>> mean, scale;
  Quat<Lanes<S>> quat;
  Lanes<S> opacity;
};

template <class S>
GAF_HD GaussianGroup<S> load_group(const RasterizationProjectArgs<S>& a, int64_t camera, int64_t first) {
  const int64_t n = a.n_gaussians, offset = a.gaussians_per_camera ? camera * n : 0;
  Lanes<S> m[3], q[4], s[3], o[1];
  load_rows(a.means + 3 * offset, first, n, 3, m);
  load_rows(a.quats + 4 * offset, first, n, 4, q);
  load_rows(a.scales + 3 * offset, first, n, 3, s);
  load_rows(a.opacities + offset, first, n, 1, o);
  return {{m[0], m[1], m[2]}, {s[0], s[1], s[2]}, {q[0], q[1], q[2], q[3]}, o[0]};
}

template <class S>
GAF_HD const S* colors_of(const RasterizationProjectArgs<S>& a, int64_t camera) {
  return a.colors + (a.colors_per_camera ? camera * a.n_gaussians * a.n_colors : 0);
}

}  // namespace gaf::cpu::GAF_ISA
