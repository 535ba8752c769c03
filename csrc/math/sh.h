// Real spherical harmonics up to degree 3, in the order and with the signs of 3D Gaussian splatting.
#pragma once
#include "lanes.h"
#include "vec.h"

namespace gaf {

constexpr int kMaxShDegree = 3;
constexpr int kMaxShBases = 16;

// basis [(degree + 1)^2] at the unit direction d.
template <class T>
GAF_HD void sh_basis(int degree, Vec3<T> d, T* basis) {
  const T x = d.x, y = d.y, z = d.z;
  basis[0] = T(0.28209479177387814);
  if (degree < 1) return;
  const T c1 = T(0.4886025119029199);
  basis[1] = -c1 * y;
  basis[2] = c1 * z;
  basis[3] = -c1 * x;
  if (degree < 2) return;
  const T c2 = T(1.0925484305920792), xx = x * x, yy = y * y, zz = z * z;
  basis[4] = c2 * x * y;
  basis[5] = -c2 * y * z;
  basis[6] = T(0.31539156525252005) * (2 * zz - xx - yy);
  basis[7] = -c2 * x * z;
  basis[8] = T(0.5462742152960396) * (xx - yy);
  if (degree < 3) return;
  const T ca = T(0.5900435899266435), cb = T(0.4570457994644658), ring = 4 * zz - xx - yy;
  basis[9] = -ca * y * (3 * xx - yy);
  basis[10] = T(2.890611442640554) * x * y * z;
  basis[11] = -cb * y * ring;
  basis[12] = T(0.3731763325901154) * z * (2 * zz - 3 * (xx + yy));
  basis[13] = -cb * x * ring;
  basis[14] = T(1.445305721320277) * z * (xx - yy);
  basis[15] = -ca * x * (xx - 3 * yy);
}

// Gradient with respect to the direction, given v [(degree + 1)^2].
template <class T>
GAF_HD Vec3<T> sh_basis_vjp(int degree, Vec3<T> d, const T* v) {
  Vec3<T> g = {T(0), T(0), T(0)};
  if (degree < 1) return g;
  const T x = d.x, y = d.y, z = d.z, c1 = T(0.4886025119029199);
  g = {-c1 * v[3], -c1 * v[1], c1 * v[2]};
  if (degree < 2) return g;
  const T c2 = T(1.0925484305920792), v4 = c2 * v[4], v5 = c2 * v[5], v7 = c2 * v[7];
  const T v6 = T(2 * 0.31539156525252005) * v[6], v8 = T(2 * 0.5462742152960396) * v[8];
  g += {v4 * y - v6 * x - v7 * z + v8 * x, v4 * x - v5 * z - v6 * y - v8 * y, 2 * v6 * z - v5 * y - v7 * x};
  if (degree < 3) return g;
  const T xx = x * x, yy = y * y, zz = z * z, ring = 4 * zz - xx - yy;
  const T v9 = T(0.5900435899266435) * v[9], v10 = T(2.890611442640554) * v[10], v11 = T(0.4570457994644658) * v[11];
  const T v12 = T(0.3731763325901154) * v[12], v13 = T(0.4570457994644658) * v[13], v14 = T(1.445305721320277) * v[14];
  const T v15 = T(0.5900435899266435) * v[15];
  g.x = g.x - 6 * v9 * x * y + v10 * y * z + 2 * v11 * x * y - 6 * v12 * x * z - v13 * (ring - 2 * xx) + 2 * v14 * x * z - 3 * v15 * (xx - yy);
  g.y = g.y - 3 * v9 * (xx - yy) + v10 * x * z - v11 * (ring - 2 * yy) - 6 * v12 * y * z + 2 * v13 * x * y - 2 * v14 * y * z + 6 * v15 * x * y;
  g.z = g.z + v10 * x * y - 8 * (v11 * y + v13 * x) * z + v12 * (6 * zz - 3 * (xx + yy)) + v14 * (xx - yy);
  return g;
}

// Unit direction from the camera to a mean, and the reciprocal of the distance (0 for a mean in the camera).
template <class T>
struct ViewDirection {
  Vec3<T> unit;
  T inv_distance;
};

template <class T>
GAF_HD ViewDirection<T> view_direction(Vec3<T> mean, Vec3<T> camera_position) {
  const Vec3<T> d = mean - camera_position;
  const T n2 = dot(d, d), inv = select_(n2 > T(0), 1 / sqrt_(n2), T(0));
  return {d * inv, inv};
}

// Gradient of the mean; the camera position's is its negative.
template <class T>
GAF_HD Vec3<T> view_direction_vjp(const ViewDirection<T>& d, Vec3<T> v_unit) {
  return (v_unit - d.unit * dot(d.unit, v_unit)) * d.inv_distance;
}

}  // namespace gaf
