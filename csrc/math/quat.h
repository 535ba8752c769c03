// Quaternions, wxyz.
#pragma once
#include "vec.h"

namespace gaf {

template <class T>
struct Quat {
  T w, x, y, z;
};

template <class T>
GAF_HD Quat<T> load4(const T* p, int64_t i) { return {p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3]}; }
template <class T>
GAF_HD void store4(T* p, int64_t i, Quat<T> q) {
  p[4 * i] = q.w;
  p[4 * i + 1] = q.x;
  p[4 * i + 2] = q.y;
  p[4 * i + 3] = q.z;
}

template <class T>
GAF_HD T dot(Quat<T> a, Quat<T> b) { return a.w * b.w + a.x * b.x + a.y * b.y + a.z * b.z; }
template <class T>
GAF_HD Quat<T> operator+(Quat<T> a, Quat<T> b) { return {a.w + b.w, a.x + b.x, a.y + b.y, a.z + b.z}; }
template <class T>
GAF_HD Quat<T> operator*(Quat<T> a, T s) { return {a.w * s, a.x * s, a.y * s, a.z * s}; }
template <class T>
GAF_HD Quat<T> conjugate(Quat<T> q) { return {q.w, -q.x, -q.y, -q.z}; }

// Hamilton product a (x) b. Its adjoints are products too: v_a = v (x) conj(b), v_b = conj(a) (x) v.
template <class T>
GAF_HD Quat<T> quat_mul(Quat<T> a, Quat<T> b) {
  return {a.w * b.w - a.x * b.x - a.y * b.y - a.z * b.z, a.w * b.x + a.x * b.w + a.y * b.z - a.z * b.y,
          a.w * b.y - a.x * b.z + a.y * b.w + a.z * b.x, a.w * b.z + a.x * b.y - a.y * b.x + a.z * b.w};
}

// q / |q|; the identity where q is zero.
template <class T>
GAF_HD Quat<T> quat_normalize(Quat<T> q) {
  const T n = std::sqrt(dot(q, q));
  return n > 0 ? q * (1 / n) : Quat<T>{1, 0, 0, 0};
}

template <class T>
GAF_HD Quat<T> quat_normalize_vjp(Quat<T> q, Quat<T> v_out) {
  const T n = std::sqrt(dot(q, q));
  if (!(n > 0)) return {0, 0, 0, 0};
  const Quat<T> u = q * (1 / n);
  return (v_out + u * (-dot(u, v_out))) * (1 / n);
}

// The unit quaternion of a rotation matrix, from its largest component so that nothing cancels (Shepperd, 1978).
template <class T>
GAF_HD Quat<T> quat_from_rotation(const Mat3<T>& m) {
  const T xx = m.c0.x, yy = m.c1.y, zz = m.c2.z, trace = xx + yy + zz;
  Quat<T> q;
  if (trace >= xx && trace >= yy && trace >= zz) {
    q = {1 + trace, m.c1.z - m.c2.y, m.c2.x - m.c0.z, m.c0.y - m.c1.x};
  } else if (xx >= yy && xx >= zz) {
    q = {m.c1.z - m.c2.y, 1 + xx - yy - zz, m.c0.y + m.c1.x, m.c2.x + m.c0.z};
  } else if (yy >= zz) {
    q = {m.c2.x - m.c0.z, m.c0.y + m.c1.x, 1 + yy - xx - zz, m.c1.z + m.c2.y};
  } else {
    q = {m.c0.y - m.c1.x, m.c2.x + m.c0.z, m.c1.z + m.c2.y, 1 + zz - xx - yy};
  }
  return quat_normalize(q);
}

// Gradient with respect to the matrix, for matrices that stay rotations, added to v_m. With m' = exp([w]x) m, dq = (0, w)/2 (x) q, so
// v_w = Im(v_q (x) conj(q)) / 2, and [v_w]x m / 2 is the matrix whose inner product with every [w]x m is v_w . w.
template <class T>
GAF_HD void quat_from_rotation_vjp(const Mat3<T>& m, Quat<T> q, Quat<T> v_q, Mat3<T>& v_m) {
  const Quat<T> g = quat_mul(v_q, conjugate(q));
  const Vec3<T> half_v_w = {g.x / 4, g.y / 4, g.z / 4};
  v_m.c0 += cross(half_v_w, m.c0);
  v_m.c1 += cross(half_v_w, m.c1);
  v_m.c2 += cross(half_v_w, m.c2);
}

}  // namespace gaf
