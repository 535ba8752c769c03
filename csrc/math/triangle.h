// The local frame of a triangle, as GaussianAvatars defines it, and Gaussians bound to it (GAF equations 1-3).
#pragma once
#include "quat.h"

namespace gaf {

template <class T>
struct TriangleFrame {
  Mat3<T> rotation;  // columns: first edge, normal, their cross product
  Vec3<T> center;    // mean of the vertices
  T length, height;  // |v1 - v0| and the distance of v2 from that edge
  Quat<T> quat;      // of `rotation`
  bool degenerate;   // no area: the frame is the identity and passes no gradient but the centre's

  GAF_HD T scale() const { return (length + height) / 2; }
};

template <class T>
GAF_HD TriangleFrame<T> triangle_frame(Vec3<T> v0, Vec3<T> v1, Vec3<T> v2) {
  TriangleFrame<T> f;
  f.center = (v0 + v1 + v2) * (T(1) / 3);
  const Vec3<T> e1 = v1 - v0, e2 = v2 - v0;
  f.length = norm(e1);
  const Vec3<T> a0 = f.length > 0 ? e1 * (1 / f.length) : Vec3<T>{1, 0, 0};
  const Vec3<T> c = cross(a0, e2);
  f.height = norm(c);
  f.degenerate = !(f.length > 0 && f.height > 0);
  if (f.degenerate) {
    f.rotation = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
  } else {
    const Vec3<T> a1 = c * (1 / f.height);
    f.rotation = {a0, a1, cross(a0, a1)};
  }
  f.quat = quat_from_rotation(f.rotation);
  return f;
}

template <class T>
struct TriangleFrameGrad {
  Mat3<T> v_rotation;
  Vec3<T> v_center;
  T v_scale;
  Quat<T> v_quat;
};

template <class T>
struct TriangleGrad {
  Vec3<T> v0, v1, v2;
};

// Gradients of the vertices. `f` is the forward's frame.
template <class T>
GAF_HD TriangleGrad<T> triangle_frame_vjp(const TriangleFrame<T>& f, Vec3<T> v0, Vec3<T> v2, TriangleFrameGrad<T> g) {
  const Vec3<T> third = g.v_center * (T(1) / 3);
  if (f.degenerate) return {third, third, third};
  quat_from_rotation_vjp(f.rotation, f.quat, g.v_quat, g.v_rotation);
  const Vec3<T> a0 = f.rotation.c0, a1 = f.rotation.c1, e2 = v2 - v0;
  Vec3<T> v_a0 = g.v_rotation.c0 + cross(a1, g.v_rotation.c2);
  const Vec3<T> v_a1 = g.v_rotation.c1 + cross(g.v_rotation.c2, a0);
  const Vec3<T> v_c = (v_a1 - a1 * dot(a1, v_a1)) * (1 / f.height) + a1 * (g.v_scale / 2);
  v_a0 += cross(e2, v_c);
  const Vec3<T> v_e2 = cross(v_c, a0);
  const Vec3<T> v_e1 = (v_a0 - a0 * dot(a0, v_a0)) * (1 / f.length) + a0 * (g.v_scale / 2);
  return {third - v_e1 - v_e2, third + v_e1, third + v_e2};
}

template <class T>
struct LocalGaussian {
  Vec3<T> mean;       // in units of the triangle's scale
  Quat<T> quat;       // not normalised
  Vec3<T> log_scale;  // of standard deviations in units of the triangle's scale
};

template <class T>
struct WorldGaussian {
  Vec3<T> mean;
  Quat<T> quat;
  Vec3<T> scale;
};

// x = k R x_l + T; q = quat(R) (x) q_l / |q_l|; s = k exp(s_l)
template <class T>
GAF_HD WorldGaussian<T> bind_gaussian(const TriangleFrame<T>& f, const LocalGaussian<T>& l) {
  const T k = f.scale();
  return {f.rotation * l.mean * k + f.center, quat_mul(f.quat, quat_normalize(l.quat)),
          {k * std::exp(l.log_scale.x), k * std::exp(l.log_scale.y), k * std::exp(l.log_scale.z)}};
}

// Gradient of the local Gaussian; the frame's gradient is added to `g`. `w` is the forward's result.
template <class T>
GAF_HD LocalGaussian<T> bind_gaussian_vjp(const TriangleFrame<T>& f, const LocalGaussian<T>& l, const WorldGaussian<T>& w,
                                          const WorldGaussian<T>& v, TriangleFrameGrad<T>& g) {
  const T k = f.scale();
  g.v_center += v.mean;
  matvec_vjp_mat(l.mean, v.mean * k, g.v_rotation);
  const Vec3<T> v_log_scale = {v.scale.x * w.scale.x, v.scale.y * w.scale.y, v.scale.z * w.scale.z};
  // ds/dk = exp(s_l), written without dividing by k, which may be zero.
  g.v_scale += dot(v.mean, f.rotation * l.mean) + v.scale.x * std::exp(l.log_scale.x) + v.scale.y * std::exp(l.log_scale.y) +
               v.scale.z * std::exp(l.log_scale.z);
  g.v_quat = g.v_quat + quat_mul(v.quat, conjugate(quat_normalize(l.quat)));
  return {transpose_mul(f.rotation, v.mean) * k, quat_normalize_vjp(l.quat, quat_mul(conjugate(f.quat), v.quat)), v_log_scale};
}

}  // namespace gaf
