// Triangles seen through a pinhole, in homogeneous form: an edge is a plane through the camera's centre, so coverage needs no division by
// depth and a triangle that crosses the camera's plane needs no clipping (Olano and Greer, 1997).
// Always in double: in float, barycentrics of pixel-sized triangles would be good to about 1 % only.
#pragma once
#include "vec.h"

namespace gaf {

struct Pinhole {
  Mat3<double> rotation;  // world to camera
  Vec3<double> translation;
  double fx, fy, cx, cy;  // pixels
  double inverse_fx, inverse_fy;
};

// viewmat [4, 4] and K [3, 3], row by row. Skew is not read.
template <class T>
GAF_HD Pinhole load_pinhole(const T* m, const T* k) {
  return {{{m[0], m[4], m[8]}, {m[1], m[5], m[9]}, {m[2], m[6], m[10]}}, {m[3], m[7], m[11]}, k[0], k[4], k[2], k[5], 1.0 / k[0], 1.0 / k[4]};
}

template <class T>
GAF_HD Vec3<double> to_camera(const Pinhole& c, Vec3<T> world) {
  return c.rotation * Vec3<double>{world.x, world.y, world.z} + c.translation;
}

// The point at depth 1 behind position (x, y) of the image, pixels.
GAF_HD Vec3<double> pixel_ray(const Pinhole& c, double x, double y) {
  return {(x - c.cx) * c.inverse_fx, (y - c.cy) * c.inverse_fy, 1};
}

// dot(n, pixel_ray(x, y)) as an affine function of the position: plane_at(result, x, y).
GAF_HD Vec3<double> pixel_plane(const Pinhole& c, Vec3<double> n) {
  const double a = n.x * c.inverse_fx, b = n.y * c.inverse_fy;
  return {a, b, n.z - (a * c.cx + b * c.cy)};
}

GAF_HD double plane_at(Vec3<double> plane, double x, double y) { return plane.x * x + (plane.y * y + plane.z); }

// cross(a, b), computed in an order that depends on the points only: cross(b, a) is then exactly the negative, whatever the compiler fuses,
// and two triangles that share an edge agree about every pixel on it.
GAF_HD Vec3<double> edge_normal(Vec3<double> a, Vec3<double> b) {
  const bool ordered = a.x != b.x ? a.x < b.x : a.y != b.y ? a.y < b.y : a.z < b.z;
  return ordered ? cross(a, b) : -cross(b, a);
}

// Of two triangles on either side of an edge, one owns the pixels exactly on it: the planes are each other's negative.
GAF_HD bool owns_edge(Vec3<double> plane) { return plane.x > 0 || (plane.x == 0 && plane.y > 0); }

// Half-open range of pixels whose centres may be covered.
struct PixelBox {
  int x0, x1, y0, y1;
};

struct ScreenTriangle {
  Vec3<double> edges[3];       // pixel planes, >= 0 inside; edge i is opposite vertex i, and its value is proportional to barycentric i
  Vec3<double> inverse_depth;  // pixel plane, 1 / metres
  PixelBox box;
  int face;
};

// value clamped to [0, limit], rounded up or down. Clamped as double: an int may not hold the value. NaN gives 0.
GAF_HD int pixel_ceil(double value, int limit) {
  const double v = value > 0 ? (value < limit ? value : limit) : 0;
  return int(v) + (int(v) < v);
}
GAF_HD int pixel_floor(double value, int limit) { return int(value > 0 ? (value < limit ? value : limit) : 0); }

// Bounds of the part of the triangle with depth >= near_plane; empty where there is none.
GAF_HD PixelBox pixel_box(const Pinhole& c, const Vec3<double> p[3], double near_plane, int width, int height) {
  constexpr double kMargin = 1e-3;  // pixels: covers rounding; coverage itself is decided by the edges
  double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
  const auto add = [&](Vec3<double> q) {
    const double inverse_z = 1 / q.z, x = c.fx * q.x * inverse_z + c.cx, y = c.fy * q.y * inverse_z + c.cy;
    x0 = x < x0 ? x : x0, x1 = x > x1 ? x : x1, y0 = y < y0 ? y : y0, y1 = y > y1 ? y : y1;
  };
  for (int i = 0; i < 3; ++i) {
    const Vec3<double> a = p[i], b = p[i == 2 ? 0 : i + 1];
    if (a.z >= near_plane) add(a);
    if ((a.z >= near_plane) == (b.z >= near_plane)) continue;
    const double t = (near_plane - a.z) / (b.z - a.z);
    add({a.x + (b.x - a.x) * t, a.y + (b.y - a.y) * t, near_plane});
  }
  if (!(x0 <= x1 && y0 <= y1)) return {0, 0, 0, 0};
  // Pixel i has its centre at i + 0.5.
  return {pixel_ceil(x0 - 0.5 - kMargin, width), pixel_floor(x1 + 0.5 + kMargin, width), pixel_ceil(y0 - 0.5 - kMargin, height),
          pixel_floor(y1 + 0.5 + kMargin, height)};
}

GAF_HD double norm1(Vec3<double> a) { return std::fabs(a.x) + std::fabs(a.y) + std::fabs(a.z); }

// False where nothing can be seen: outside the image, between two pixel centres, before the near plane, no area, seen edge-on, or not finite.
GAF_HD bool screen_triangle(const Pinhole& c, const Vec3<double> p[3], double near_plane, int width, int height, ScreenTriangle& out) {
  constexpr double kRounding = 1e-15;  // of a few operations, relative
  out.box = pixel_box(c, p, near_plane, width, height);
  if (out.box.x0 >= out.box.x1 || out.box.y0 >= out.box.y1) return false;
  const Vec3<double> e1 = p[1] - p[0], e2 = p[2] - p[0], n = cross(e1, e2);
  const double det = dot(p[0], n), size = norm1(n), reach = norm1(p[0]) + norm1(p[1]) + norm1(p[2]);
  if (!std::isfinite(det) || !(size > kRounding * reach * (norm1(e1) + norm1(e2))) || !(std::fabs(det) > kRounding * reach * size)) return false;
  const double sign = det > 0 ? 1 : -1;  // both sides of a triangle are visible
  out.edges[0] = pixel_plane(c, edge_normal(p[1], p[2]) * sign);
  out.edges[1] = pixel_plane(c, edge_normal(p[2], p[0]) * sign);
  out.edges[2] = pixel_plane(c, edge_normal(p[0], p[1]) * sign);
  out.inverse_depth = pixel_plane(c, n * (1 / det));
  return true;
}

// What a pixel's gradient needs of its triangle, camera space.
struct TriangleSides {
  Vec3<double> e1, e2, normal;  // p1 - p0, p2 - p0, their cross product
};

// The ray d meets the triangle where sum_i b_i p_i = depth d and sum_i b_i = 1. Differentiating both, with multipliers l for the first, gives
// e1 . l = v_b1 - v_b0, e2 . l = v_b2 - v_b0, d . l = -v_depth, and the gradient of vertex i is -b_i l. Returns -l.
GAF_HD Vec3<double> ray_triangle_vjp(const TriangleSides& t, Vec3<double> ray, Vec3<double> v_barycentrics, double v_depth) {
  const double g1 = v_barycentrics.y - v_barycentrics.x, g2 = v_barycentrics.z - v_barycentrics.x;
  const Vec3<double> l = cross(t.e2, ray) * g1 + cross(ray, t.e1) * g2 - t.normal * v_depth;
  return l * (-1 / dot(ray, t.normal));
}

}  // namespace gaf
