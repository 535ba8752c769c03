// Three-vectors and 3x3 matrices.
#pragma once
#include <cmath>
#include <cstdint>

#include "macros.h"

namespace gaf {

template <class T>
struct Vec3 {
  T x, y, z;
};

template <class T>
GAF_HD Vec3<T> operator+(Vec3<T> a, Vec3<T> b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
template <class T>
GAF_HD Vec3<T> operator-(Vec3<T> a, Vec3<T> b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
template <class T>
GAF_HD Vec3<T> operator-(Vec3<T> a) { return {-a.x, -a.y, -a.z}; }
template <class T>
GAF_HD Vec3<T> operator*(Vec3<T> a, T s) { return {a.x * s, a.y * s, a.z * s}; }
template <class T>
GAF_HD Vec3<T>& operator+=(Vec3<T>& a, Vec3<T> b) { return a = a + b; }

template <class T>
GAF_HD T dot(Vec3<T> a, Vec3<T> b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
template <class T>
GAF_HD T norm(Vec3<T> a) { return std::sqrt(dot(a, a)); }

// For c = cross(a, b): v_a = cross(b, v_c), v_b = cross(v_c, a).
template <class T>
GAF_HD Vec3<T> cross(Vec3<T> a, Vec3<T> b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

template <class T>
GAF_HD Vec3<T> load3(const T* p, int64_t i) { return {p[3 * i], p[3 * i + 1], p[3 * i + 2]}; }
template <class T>
GAF_HD void store3(T* p, int64_t i, Vec3<T> a) {
  p[3 * i] = a.x;
  p[3 * i + 1] = a.y;
  p[3 * i + 2] = a.z;
}

// Three columns.
template <class T>
struct Mat3 {
  Vec3<T> c0, c1, c2;
};

template <class T>
GAF_HD Vec3<T> operator*(const Mat3<T>& m, Vec3<T> v) { return m.c0 * v.x + m.c1 * v.y + m.c2 * v.z; }

// transpose(m) * v
template <class T>
GAF_HD Vec3<T> transpose_mul(const Mat3<T>& m, Vec3<T> v) { return {dot(m.c0, v), dot(m.c1, v), dot(m.c2, v)}; }

template <class T>
GAF_HD Mat3<T> operator-(const Mat3<T>& a, const Mat3<T>& b) { return {a.c0 - b.c0, a.c1 - b.c1, a.c2 - b.c2}; }
template <class T>
GAF_HD Mat3<T>& operator+=(Mat3<T>& a, const Mat3<T>& b) { return a = {a.c0 + b.c0, a.c1 + b.c1, a.c2 + b.c2}; }
template <class T>
GAF_HD Mat3<T> operator*(const Mat3<T>& a, T s) { return {a.c0 * s, a.c1 * s, a.c2 * s}; }
template <class T>
GAF_HD Mat3<T> operator*(const Mat3<T>& a, const Mat3<T>& b) { return {a * b.c0, a * b.c1, a * b.c2}; }

// transpose(a) * b
template <class T>
GAF_HD Mat3<T> transpose_mul(const Mat3<T>& a, const Mat3<T>& b) {
  return {transpose_mul(a, b.c0), transpose_mul(a, b.c1), transpose_mul(a, b.c2)};
}

// a * transpose(b)
template <class T>
GAF_HD Mat3<T> mul_transpose(const Mat3<T>& a, const Mat3<T>& b) {
  return {a.c0 * b.c0.x + a.c1 * b.c1.x + a.c2 * b.c2.x, a.c0 * b.c0.y + a.c1 * b.c1.y + a.c2 * b.c2.y,
          a.c0 * b.c0.z + a.c1 * b.c1.z + a.c2 * b.c2.z};
}

// Gradient of m * v with respect to m, added to v_m.
template <class T>
GAF_HD void matvec_vjp_mat(Vec3<T> v, Vec3<T> v_out, Mat3<T>& v_m) {
  v_m.c0 += v_out * v.x;
  v_m.c1 += v_out * v.y;
  v_m.c2 += v_out * v.z;
}

}  // namespace gaf
