// Linear blend skinning: rotations from axis-angle vectors, forward kinematics over a tree of joints, and the weighted mean of transforms.
#pragma once
#include "vec.h"

namespace gaf {

// x -> rotation x + translation; twelve numbers in this order.
template <class T>
struct RigidTransform {
  Mat3<T> rotation;
  Vec3<T> translation;
};

// sin(t) / t and (1 - cos t) / t^2 of an angle t, and their derivatives by t^2.
template <class T>
struct AngleTerms {
  T sine, cosine, d_sine, d_cosine;
};

// Up to one radian by their series, which ten terms give to double precision: the closed forms lose digits there, the derivatives' most.
template <class T>
GAF_HD AngleTerms<T> angle_terms(T angle2) {
  if (angle2 < 1) {
    T s = 1, c = 1, d_s = 1, d_c = 1;
    for (int k = 10; k > 0; --k) {
      const T n = T(2 * k), later = T(k + 1) / T(k);
      s = 1 - angle2 * s * (1 / (n * (n + 1)));
      c = 1 - angle2 * c * (1 / ((n + 1) * (n + 2)));
      d_s = 1 - angle2 * d_s * (later / ((n + 2) * (n + 3)));
      d_c = 1 - angle2 * d_c * (later / ((n + 3) * (n + 4)));
    }
    return {s, c / 2, -d_s / 6, -d_c / 24};
  }
  const T angle = std::sqrt(angle2), half = std::sin(angle / 2);
  const T s = std::sin(angle) / angle, c = 2 * half * half / angle2;
  return {s, c, (std::cos(angle) - s) / (2 * angle2), (s / 2 - c) / angle2};
}

// Rodrigues' formula: 1 + sine [r] + cosine (r r^T - |r|^2), radians.
template <class T>
GAF_HD Mat3<T> rotation_of(Vec3<T> r) {
  const AngleTerms<T> t = angle_terms(dot(r, r));
  const T x = t.cosine * r.x, y = t.cosine * r.y, z = t.cosine * r.z;
  return {{1 - y * r.y - z * r.z, x * r.y + t.sine * r.z, x * r.z - t.sine * r.y},
          {x * r.y - t.sine * r.z, 1 - x * r.x - z * r.z, y * r.z + t.sine * r.x},
          {x * r.z + t.sine * r.y, y * r.z - t.sine * r.x, 1 - x * r.x - y * r.y}};
}

// Gradient of the vector, given the matrix's.
template <class T>
GAF_HD Vec3<T> rotation_of_vjp(Vec3<T> r, const Mat3<T>& v) {
  const AngleTerms<T> t = angle_terms(dot(r, r));
  const Vec3<T> curl = {v.c1.z - v.c2.y, v.c2.x - v.c0.z, v.c0.y - v.c1.x};
  const Vec3<T> vr = v * r, both = vr + transpose_mul(v, r);
  const T trace = v.c0.x + v.c1.y + v.c2.z;
  const T v_angle2 = t.d_sine * dot(curl, r) + t.d_cosine * (dot(r, vr) - dot(r, r) * trace);
  return curl * t.sine + both * t.cosine + r * (2 * v_angle2 - 2 * t.cosine * trace);
}

// Forward kinematics, in place: each joint's own rotation (the translation is not read) becomes its transform from the rest pose.
// A parent (-1: none) comes before its children.
template <class T>
GAF_HD void compose_transforms(int64_t n, const int64_t* parents, const T* joints, RigidTransform<T>* transforms) {
  for (int64_t j = 0; j < n; ++j) {
    const Vec3<T> place = load3(joints, j);
    const Mat3<T> own = transforms[j].rotation;
    if (parents[j] < 0) {
      transforms[j].translation = place - own * place;
    } else {
      const RigidTransform<T> p = transforms[parents[j]];
      transforms[j].rotation = p.rotation * own;
      transforms[j].translation = p.translation + (p.rotation - transforms[j].rotation) * place;
    }
  }
}

// `v` comes in with the transforms' gradients and leaves with those of the joints' own rotations; its translations are used up.
template <class T>
GAF_HD void compose_transforms_vjp(int64_t n, const int64_t* parents, const T* joints, const RigidTransform<T>* transforms, RigidTransform<T>* v,
                                   T* v_joints) {
  for (int64_t j = n - 1; j >= 0; --j) {
    const Vec3<T> place = load3(joints, j), v_translation = v[j].translation;
    const Mat3<T> world = transforms[j].rotation;
    matvec_vjp_mat(-place, v_translation, v[j].rotation);
    Vec3<T> v_place = -transpose_mul(world, v_translation);
    if (parents[j] < 0) {
      v_place += v_translation;
    } else {
      const Mat3<T> parent = transforms[parents[j]].rotation, own = transpose_mul(parent, world);
      RigidTransform<T>& v_parent = v[parents[j]];
      v_parent.rotation += mul_transpose(v[j].rotation, own);
      matvec_vjp_mat(place, v_translation, v_parent.rotation);
      v_parent.translation += v_translation;
      v_place += transpose_mul(parent, v_translation);
      v[j].rotation = transpose_mul(parent, v[j].rotation);
    }
    store3(v_joints, j, v_place);
  }
}

// A vertex's own transform: the mean of the joints', weighted.
template <class T>
GAF_HD RigidTransform<T> blended_transform(int64_t n, const T* weights, const RigidTransform<T>* joints) {
  RigidTransform<T> sum{};
  for (int64_t j = 0; j < n; ++j) {
    const T w = weights[j];
    const RigidTransform<T>& t = joints[j];
    sum.rotation += t.rotation * w;
    sum.translation += t.translation * w;
  }
  return sum;
}

}  // namespace gaf
