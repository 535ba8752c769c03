// A pinhole camera in OpenCV's convention (x right, y down, z forward; pixel centres at +0.5) and the directions of a perspective ray.
#pragma once
#include "constants.h"
#include "lanes.h"
#include "vec.h"

namespace gaf {

template <class T>
struct PinholeCamera {
  Mat3<T> rotation;     // world to camera
  Vec3<T> translation;  // world to camera, metres
  Vec3<T> position;     // of the camera in the world, metres
  T fx, fy, cx, cy;     // pixels
  // Bounds of x/z and y/z inside which the projection is linearised where the Gaussian is; outside, at the bound (as gsplat does).
  T x_min, x_max, y_min, y_max;
};

template <class T>
GAF_HD Mat3<T> inverse(const Mat3<T>& m) {
  const Vec3<T> r0 = cross(m.c1, m.c2), r1 = cross(m.c2, m.c0), r2 = cross(m.c0, m.c1);
  const T s = 1 / dot(m.c0, r0);
  return {Vec3<T>{r0.x, r1.x, r2.x} * s, Vec3<T>{r0.y, r1.y, r2.y} * s, Vec3<T>{r0.z, r1.z, r2.z} * s};
}

// viewmat [4, 4] world to camera, K [3, 3] pixels, both row-major.
template <class T>
GAF_HD PinholeCamera<T> pinhole_camera(const T* viewmat, const T* K, int width, int height) {
  PinholeCamera<T> c;
  const T* v = viewmat;
  c.rotation = {{v[0], v[4], v[8]}, {v[1], v[5], v[9]}, {v[2], v[6], v[10]}};
  c.translation = {v[3], v[7], v[11]};
  c.position = -(inverse(c.rotation) * c.translation);
  c.fx = K[0], c.fy = K[4], c.cx = K[2], c.cy = K[5];
  const T margin_x = T(kFrustumMargin) * T(0.5) * width / c.fx, margin_y = T(kFrustumMargin) * T(0.5) * height / c.fy;
  c.x_min = -(c.cx / c.fx + margin_x);
  c.x_max = (width - c.cx) / c.fx + margin_x;
  c.y_min = -(c.cy / c.fy + margin_y);
  c.y_max = (height - c.cy) / c.fy + margin_y;
  return c;
}

// Gradient of the camera's position with respect to the world-to-camera matrix, added. position = -A^-1 t.
template <class T>
GAF_HD void camera_position_vjp(const PinholeCamera<T>& c, Vec3<T> v_position, Mat3<T>& v_rotation, Vec3<T>& v_translation) {
  const Vec3<T> w = -transpose_mul(inverse(c.rotation), v_position);
  v_translation += w;
  matvec_vjp_mat(c.position, w, v_rotation);
}

}  // namespace gaf
