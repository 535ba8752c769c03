// Backward of rasterize_mesh: pixels to triangles' corners in camera space, corners to vertices, vertices to the world and to the view matrix.
#include <algorithm>
#include <vector>

#include "math/mesh.h"
#include "ops/rasterize_mesh.h"
#include "triangle_sums.h"

namespace gaf::cpu {
namespace {

// Gradients of the camera-space vertices [V] of camera c.
template <class T>
void v_camera_vertices(const RasterizeMeshArgs<T>& a, int64_t c, const Pinhole& camera, TriangleSums& sums, std::vector<Vec3<double>>& v) {
  const T* mesh = a.vertices + (a.n_meshes == 1 ? 0 : c) * a.n_vertices * 3;
  const int64_t n_pixels = int64_t(a.width) * a.height, offset = c * n_pixels;
  std::fill(v.begin(), v.end(), Vec3<double>{0, 0, 0});
  const auto add = [&](int64_t p, int32_t face, double* sum) {
    const int64_t* i = a.faces + 3 * int64_t(face);
    const Vec3<double> p0 = to_camera(camera, load3(mesh, i[0])), p1 = to_camera(camera, load3(mesh, i[1])),
                       p2 = to_camera(camera, load3(mesh, i[2]));
    const Vec3<double> e1 = p1 - p0, e2 = p2 - p0;
    const Vec3<double> ray = pixel_ray(camera, double(p % a.width) + 0.5, double(p / a.width) + 0.5);
    const Vec3<T> v_b = load3(a.v_barycentrics, offset + p), b = load3(a.barycentrics, offset + p);
    const Vec3<double> g = ray_triangle_vjp({e1, e2, cross(e1, e2)}, ray, {v_b.x, v_b.y, v_b.z}, a.v_depth[offset + p]);
    store3(sum, 0, load3(sum, 0) + g * double(b.x));
    store3(sum, 1, load3(sum, 1) + g * double(b.y));
    store3(sum, 2, load3(sum, 2) + g * double(b.z));
  };
  const auto emit = [&](int32_t face, const double* sum) {
    for (int i = 0; i < 3; ++i) v[a.faces[3 * int64_t(face) + i]] += load3(sum, i);
  };
  sums.run(a.triangle_ids + offset, n_pixels, add, emit);
}

// p = R x + t: v_R = sum v_p x^T, v_t = sum v_p.
template <class T>
void write_v_viewmat(const T* mesh, const std::vector<Vec3<double>>& v, T* out) {
  Mat3<double> v_rotation{};
  Vec3<double> v_translation{0, 0, 0};
  for (size_t i = 0; i < v.size(); ++i) {
    const Vec3<T> x = load3(mesh, int64_t(i));
    matvec_vjp_mat(Vec3<double>{x.x, x.y, x.z}, v[i], v_rotation);
    v_translation += v[i];
  }
  const Vec3<double> columns[4] = {v_rotation.c0, v_rotation.c1, v_rotation.c2, v_translation};
  for (int k = 0; k < 4; ++k) {
    out[k] = T(columns[k].x);
    out[4 + k] = T(columns[k].y);
    out[8 + k] = T(columns[k].z);
    out[12 + k] = 0;
  }
}

}  // namespace

template <class T>
void rasterize_mesh_bwd(const RasterizeMeshArgs<T>& a, int threads) {
  TriangleSums sums(a.n_faces, 9, threads);
  std::vector<Vec3<double>> v(a.n_vertices), v_world(a.n_vertices, {0, 0, 0});
  const auto flush = [&](int64_t mesh) {
    for (int64_t i = 0; i < a.n_vertices; ++i) store3(a.v_vertices, mesh * a.n_vertices + i, {T(v_world[i].x), T(v_world[i].y), T(v_world[i].z)});
    std::fill(v_world.begin(), v_world.end(), Vec3<double>{0, 0, 0});
  };
  for (int64_t c = 0; c < a.n_cameras; ++c) {
    const Pinhole camera = load_pinhole(a.viewmats + 16 * c, a.Ks + 9 * c);
    v_camera_vertices(a, c, camera, sums, v);
    write_v_viewmat(a.vertices + (a.n_meshes == 1 ? 0 : c) * a.n_vertices * 3, v, a.v_viewmats + 16 * c);
    for (int64_t i = 0; i < a.n_vertices; ++i) v_world[i] += transpose_mul(camera.rotation, v[i]);
    if (a.n_meshes != 1) flush(c);
  }
  if (a.n_meshes == 1) flush(0);
}

template void rasterize_mesh_bwd(const RasterizeMeshArgs<float>&, int);
template void rasterize_mesh_bwd(const RasterizeMeshArgs<double>&, int);

}  // namespace gaf::cpu
