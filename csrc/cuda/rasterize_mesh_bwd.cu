// Backward of rasterize_mesh, without atomics: pixels are sorted by triangle, a warp sums over the pixels of one triangle to its corners in
// camera space, a thread sums the corners that meet at a vertex, and from there to the world's vertices and to the view matrices.
#include "device/groups.h"
#include "device/launch.h"
#include "device/reduce.h"
#include "math/mesh.h"
#include "ops/rasterize_mesh.h"

namespace gaf::cuda {
namespace {

using MeshArgs = RasterizeMeshArgs<float>;

__device__ __forceinline__ const float* mesh_of(const MeshArgs& a, int64_t c) { return a.vertices + (a.n_meshes == 1 ? 0 : c) * a.n_vertices * 3; }
__device__ __forceinline__ Pinhole camera_of(const MeshArgs& a, int64_t c) { return load_pinhole(a.viewmats + 16 * c, a.Ks + 9 * c); }
__device__ __forceinline__ Vec3<double> warp_sum3(Vec3<double> v) { return {warp_sum(v.x), warp_sum(v.y), warp_sum(v.z)}; }

__global__ void __launch_bounds__(kThreads) mesh_keys_kernel(MeshArgs a, int32_t* keys) {
  const int64_t pixel = thread_index(), n_pixels = int64_t(a.width) * a.height;
  if (pixel >= a.n_cameras * n_pixels) return;
  const int32_t face = a.triangle_ids[pixel];
  keys[pixel] = face < 0 ? -1 : int32_t(pixel / n_pixels * a.n_faces + face);
}

// v_corners: [C, F, 3, 3], camera space. Lane l of a triangle's warp takes its pixels l, l + 32, ...
__global__ void __launch_bounds__(kThreads) mesh_triangles_kernel(MeshArgs a, Groups by_triangle, double* v_corners) {
  const int64_t t = thread_index() / kWarp;
  if (t >= a.n_cameras * a.n_faces) return;  // whole warps
  const uint32_t begin = by_triangle.begin[t], end = by_triangle.begin[t + 1];
  Vec3<double> v0{0, 0, 0}, v1{0, 0, 0}, v2{0, 0, 0};
  if (end > begin) {
    const int64_t c = t / a.n_faces, n_pixels = int64_t(a.width) * a.height;
    const Pinhole camera = camera_of(a, c);
    const float* mesh = mesh_of(a, c);
    const int64_t* f = a.faces + 3 * (t - c * a.n_faces);
    const Vec3<double> p0 = to_camera(camera, load3(mesh, f[0]));
    const Vec3<double> e1 = to_camera(camera, load3(mesh, f[1])) - p0, e2 = to_camera(camera, load3(mesh, f[2])) - p0;
    const TriangleSides sides = {e1, e2, cross(e1, e2)};
    for (uint32_t i = begin + uint32_t(lane_index()); i < end; i += kWarp) {
      const int64_t pixel = by_triangle.members[i], p = pixel - c * n_pixels;
      const Vec3<double> ray = pixel_ray(camera, double(p % a.width) + 0.5, double(p / a.width) + 0.5);
      const Vec3<float> v_b = load3(a.v_barycentrics, pixel), b = load3(a.barycentrics, pixel);
      const Vec3<double> g = ray_triangle_vjp(sides, ray, {v_b.x, v_b.y, v_b.z}, a.v_depth[pixel]);
      v0 += g * double(b.x);
      v1 += g * double(b.y);
      v2 += g * double(b.z);
    }
    v0 = warp_sum3(v0), v1 = warp_sum3(v1), v2 = warp_sum3(v2);
  }
  if (lane_index() != 0) return;
  store3(v_corners, 3 * t, v0);
  store3(v_corners, 3 * t + 1, v1);
  store3(v_corners, 3 * t + 2, v2);
}

// v: [C, V, 3], camera space
__global__ void __launch_bounds__(kThreads) mesh_camera_vertices_kernel(MeshArgs a, Groups by_vertex, const double* v_corners, double* v) {
  const int64_t o = thread_index();
  if (o >= a.n_cameras * a.n_vertices) return;
  const int64_t c = o / a.n_vertices, i = o - c * a.n_vertices;
  Vec3<double> sum{0, 0, 0};
  for (uint32_t k = by_vertex.begin[i]; k < by_vertex.begin[i + 1]; ++k) sum += load3(v_corners, 3 * c * a.n_faces + by_vertex.members[k]);
  store3(v, o, sum);
}

__global__ void __launch_bounds__(kThreads) mesh_world_vertices_kernel(MeshArgs a, const double* v) {
  const int64_t o = thread_index();
  if (o >= a.n_meshes * a.n_vertices) return;
  const int64_t mesh = o / a.n_vertices, i = o - mesh * a.n_vertices;
  const int64_t first = a.n_meshes == 1 ? 0 : mesh, last = a.n_meshes == 1 ? a.n_cameras : mesh + 1;
  Vec3<double> sum{0, 0, 0};
  for (int64_t c = first; c < last; ++c) sum += transpose_mul(camera_of(a, c).rotation, load3(v, c * a.n_vertices + i));
  store3(a.v_vertices, o, {float(sum.x), float(sum.y), float(sum.z)});
}

// p = R x + t: v_R = sum v_p x^T, v_t = sum v_p. A block a camera.
__global__ void __launch_bounds__(kThreads) mesh_viewmats_kernel(MeshArgs a, const double* v) {
  GAF_SHARED(double, partial, [kWarp]);
  const int64_t c = blockIdx.x;
  const float* mesh = mesh_of(a, c);
  Mat3<double> v_rotation{};
  Vec3<double> v_translation{0, 0, 0};
  for (int64_t i = threadIdx.x; i < a.n_vertices; i += kThreads) {
    const Vec3<float> x = load3(mesh, i);
    const Vec3<double> v_p = load3(v, c * a.n_vertices + i);
    matvec_vjp_mat(Vec3<double>{x.x, x.y, x.z}, v_p, v_rotation);
    v_translation += v_p;
  }
  const Vec3<double> columns[4] = {v_rotation.c0, v_rotation.c1, v_rotation.c2, v_translation};
  float* out = a.v_viewmats + 16 * c;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const double sums[3] = {columns[k].x, columns[k].y, columns[k].z};
#pragma unroll
    for (int row = 0; row < 3; ++row) {
      const double total = block_sum(sums[row], partial);
      __syncthreads();
      if (threadIdx.x == 0) out[4 * row + k] = float(total);
    }
    if (threadIdx.x == 0) out[12 + k] = 0;
  }
}

}  // namespace

void rasterize_mesh_bwd(const MeshArgs& a, Stream stream) {
  const char* name = "rasterize_mesh_bwd";
  const int64_t n_pixels = a.n_cameras * a.width * int64_t(a.height), n_triangles = a.n_cameras * a.n_faces;
  int32_t* keys = stream.scratch<int32_t>(n_pixels);
  double* v_corners = stream.scratch<double>(9 * n_triangles);
  double* v = stream.scratch<double>(3 * a.n_cameras * a.n_vertices);
  launch(name, mesh_keys_kernel, blocks_for(n_pixels), kThreads, 0, stream, a, keys);
  const Groups by_triangle = make_groups(name, keys, n_pixels, n_triangles, stream);
  const Groups by_vertex = make_groups(name, a.faces, 3 * a.n_faces, a.n_vertices, stream);
  launch(name, mesh_triangles_kernel, blocks_for(kWarp * n_triangles), kThreads, 0, stream, a, by_triangle, v_corners);
  launch(name, mesh_camera_vertices_kernel, blocks_for(a.n_cameras * a.n_vertices), kThreads, 0, stream, a, by_vertex, v_corners, v);
  launch(name, mesh_world_vertices_kernel, blocks_for(a.n_meshes * a.n_vertices), kThreads, 0, stream, a, v);
  launch(name, mesh_viewmats_kernel, dim3(unsigned(a.n_cameras)), kThreads, 0, stream, a, v);
}

}  // namespace gaf::cuda
