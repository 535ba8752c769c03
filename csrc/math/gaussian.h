// A 3D Gaussian seen by a pinhole camera: EWA splatting (Zwicker et al. 2002) with gsplat's conventions.
#pragma once
#include "camera.h"
#include "quat.h"

namespace gaf {

// Columns of the rotation of a unit quaternion.
template <class T>
GAF_HD Mat3<T> rotation_of_quat(Quat<T> q) {
  const T xx = q.x * q.x, yy = q.y * q.y, zz = q.z * q.z, xy = q.x * q.y, xz = q.x * q.z, yz = q.y * q.z;
  const T wx = q.w * q.x, wy = q.w * q.y, wz = q.w * q.z;
  return {{1 - 2 * (yy + zz), 2 * (xy + wz), 2 * (xz - wy)},
          {2 * (xy - wz), 1 - 2 * (xx + zz), 2 * (yz + wx)},
          {2 * (xz + wy), 2 * (yz - wx), 1 - 2 * (xx + yy)}};
}

template <class T>
GAF_HD Quat<T> rotation_of_quat_vjp(Quat<T> q, const Mat3<T>& v) {
  const T yz = v.c1.z - v.c2.y, zx = v.c2.x - v.c0.z, xy = v.c0.y - v.c1.x;        // antisymmetric part
  const T s_xy = v.c1.x + v.c0.y, s_xz = v.c2.x + v.c0.z, s_yz = v.c2.y + v.c1.z;  // symmetric part
  return {2 * (q.x * yz + q.y * zx + q.z * xy),
          2 * (q.y * s_xy + q.z * s_xz + q.w * yz - 2 * q.x * (v.c1.y + v.c2.z)),
          2 * (q.x * s_xy + q.z * s_yz + q.w * zx - 2 * q.y * (v.c0.x + v.c2.z)),
          2 * (q.x * s_xz + q.y * s_yz + q.w * xy - 2 * q.z * (v.c0.x + v.c1.y))};
}

template <class T>
struct ProjectedGaussian {
  Vec3<T> p;         // mean in the camera's frame, metres
  T inv_z;
  T slope_x, slope_y;  // x/z and y/z, kept inside the frustum's margin
  T free_x, free_y;    // 1 where the slope was inside it, 0 where it was frozen
  Quat<T> unit;        // normalised quaternion
  T inv_norm;          // of the quaternion given
  Mat3<T> turn;        // its rotation
  Mat3<T> axes;        // principal axes in the camera's frame, unit length
  Vec3<T> row_x, row_y;  // covariance = rows . rows, pixels
  T x, y;                // mean, pixels
  T xx, xy, yy;          // covariance with the blur eps2d added, pixels^2
  T det_sharp, det;      // determinants without and with the blur
};

// The determinant comes from the cross product of the rows (Cauchy-Binet), not from xx yy - xy^2, which cancels for thin splats.
template <class T>
GAF_HD ProjectedGaussian<T> project_gaussian(const PinholeCamera<T>& c, Vec3<T> mean, Quat<T> quat, Vec3<T> scale, T eps2d) {
  ProjectedGaussian<T> g;
  g.p = c.rotation * mean + c.translation;
  g.inv_z = 1 / g.p.z;
  const T sx = g.p.x * g.inv_z, sy = g.p.y * g.inv_z;
  g.x = c.fx * sx + c.cx;
  g.y = c.fy * sy + c.cy;
  g.slope_x = min_(max_(sx, c.x_min), c.x_max);
  g.slope_y = min_(max_(sy, c.y_min), c.y_max);
  g.free_x = select_(sx == g.slope_x, T(1), T(0));
  g.free_y = select_(sy == g.slope_y, T(1), T(0));
  g.inv_norm = 1 / sqrt_(dot(quat, quat));
  g.unit = quat * g.inv_norm;
  g.turn = rotation_of_quat(g.unit);
  g.axes = {c.rotation * g.turn.c0, c.rotation * g.turn.c1, c.rotation * g.turn.c2};
  const Vec3<T> m0 = g.axes.c0 * scale.x, m1 = g.axes.c1 * scale.y, m2 = g.axes.c2 * scale.z;
  const T jx = c.fx * g.inv_z, jy = c.fy * g.inv_z;
  g.row_x = Vec3<T>{m0.x - g.slope_x * m0.z, m1.x - g.slope_x * m1.z, m2.x - g.slope_x * m2.z} * jx;
  g.row_y = Vec3<T>{m0.y - g.slope_y * m0.z, m1.y - g.slope_y * m1.z, m2.y - g.slope_y * m2.z} * jy;
  const T sharp_xx = dot(g.row_x, g.row_x), sharp_yy = dot(g.row_y, g.row_y);
  const Vec3<T> n = cross(g.row_x, g.row_y);
  g.xx = sharp_xx + eps2d;
  g.xy = dot(g.row_x, g.row_y);
  g.yy = sharp_yy + eps2d;
  g.det_sharp = dot(n, n);
  g.det = g.det_sharp + eps2d * (sharp_xx + sharp_yy) + eps2d * eps2d;
  return g;
}

// What antialiasing multiplies the opacity with, so that a splat smaller than a pixel keeps its mass (Mip-Splatting).
template <class T>
GAF_HD T blur_compensation(const ProjectedGaussian<T>& g) {
  return sqrt_(g.det_sharp / g.det);
}

template <class T>
struct ScreenGrad {
  T x, y;        // mean, per pixel
  T xx, xy, yy;  // covariance; xy is the derivative for both off-diagonal entries together
  T depth;
};

// Adds the gradient of blur_compensation to that of the covariance.
template <class T>
GAF_HD void blur_compensation_vjp(const ProjectedGaussian<T>& g, T eps2d, T compensation, T v_compensation, ScreenGrad<T>& v) {
  const T v_ratio = v_compensation * T(0.5) / (compensation + T(1e-6));  // the square root has no slope at zero
  const T s = v_ratio / g.det, ratio = g.det_sharp / g.det;
  v.xx = v.xx + s * ((g.yy - eps2d) - ratio * g.yy);
  v.yy = v.yy + s * ((g.xx - eps2d) - ratio * g.xx);
  v.xy = v.xy - 2 * s * g.xy * (1 - ratio);
}

template <class T>
struct GaussianGrad {
  Vec3<T> mean;
  Quat<T> quat;
  Vec3<T> scale;
};

// Gradients of mean, quaternion and scales; those of the world-to-camera matrix are added to v_rotation and v_translation.
template <class T>
GAF_HD GaussianGrad<T> project_gaussian_vjp(const PinholeCamera<T>& c, const ProjectedGaussian<T>& g, Vec3<T> mean, Vec3<T> scale,
                                            const ScreenGrad<T>& v, Mat3<T>& v_rotation, Vec3<T>& v_translation) {
  const T jx = c.fx * g.inv_z, jy = c.fy * g.inv_z;
  const Vec3<T> v_row_x = g.row_x * (2 * v.xx) + g.row_y * v.xy, v_row_y = g.row_y * (2 * v.yy) + g.row_x * v.xy;
  const Vec3<T> gx = v_row_x * jx, gy = v_row_y * jy;
  // Depth of the three scaled axes: what the slopes multiply.
  const Vec3<T> m_z = {g.axes.c0.z * scale.x, g.axes.c1.z * scale.y, g.axes.c2.z * scale.z};
  const Vec3<T> gz = -(gx * g.slope_x + gy * g.slope_y);
  const T v_slope_x = g.free_x * -dot(gx, m_z) + c.fx * v.x, v_slope_y = g.free_y * -dot(gy, m_z) + c.fy * v.y;
  const Vec3<T> v_m0 = {gx.x, gy.x, gz.x}, v_m1 = {gx.y, gy.y, gz.y}, v_m2 = {gx.z, gy.z, gz.z};
  GaussianGrad<T> out;
  out.scale = {dot(v_m0, g.axes.c0), dot(v_m1, g.axes.c1), dot(v_m2, g.axes.c2)};
  const Vec3<T> v_a0 = v_m0 * scale.x, v_a1 = v_m1 * scale.y, v_a2 = v_m2 * scale.z;
  const Mat3<T> v_turn = {transpose_mul(c.rotation, v_a0), transpose_mul(c.rotation, v_a1), transpose_mul(c.rotation, v_a2)};
  const Quat<T> v_unit = rotation_of_quat_vjp(g.unit, v_turn);
  out.quat = (v_unit + g.unit * -dot(g.unit, v_unit)) * g.inv_norm;
  // rows = j (m_xy - slope m_z) with j = f / z: the derivative by 1/z is rows . v_rows z, plus that through the slopes.
  const T v_inv_z_times_z = dot(g.row_x, v_row_x) + dot(g.row_y, v_row_y);
  const T sx = g.p.x * g.inv_z, sy = g.p.y * g.inv_z;
  const Vec3<T> v_p = {v_slope_x * g.inv_z, v_slope_y * g.inv_z,
                       v.depth - g.inv_z * (v_inv_z_times_z + v_slope_x * sx + v_slope_y * sy)};
  out.mean = transpose_mul(c.rotation, v_p);
  v_translation += v_p;
  matvec_vjp_mat(mean, v_p, v_rotation);
  matvec_vjp_mat(g.turn.c0, v_a0, v_rotation);
  matvec_vjp_mat(g.turn.c1, v_a1, v_rotation);
  matvec_vjp_mat(g.turn.c2, v_a2, v_rotation);
  return out;
}

}  // namespace gaf
