// Forward: a thread a pixel. Backward to the barycentrics: a thread a pixel. Backward to the attributes, without atomics: pixels are sorted by
// triangle, a warp sums the pixels of one triangle, and a thread sums the corners that meet at one vertex.
#include "device/groups.h"
#include "device/launch.h"
#include "device/reduce.h"
#include "math/vec.h"
#include "ops/interpolate.h"

namespace gaf::cuda {
namespace {

// The attributes of a face's corners, as seen by camera c.
struct Corners {
  const float* row[3];  // [A] each
};

__device__ __forceinline__ Corners corners_of(const InterpolateArgs<float>& a, int64_t c, int32_t face) {
  const float* mesh = a.attributes + (a.n_meshes == 1 ? 0 : c) * a.n_vertices * a.n_channels;
  const int64_t* f = a.faces + 3 * int64_t(face);
  return {{mesh + f[0] * a.n_channels, mesh + f[1] * a.n_channels, mesh + f[2] * a.n_channels}};
}

__global__ void __launch_bounds__(kThreads) interpolate_fwd_kernel(InterpolateArgs<float> a) {
  const int64_t p = thread_index();
  if (p >= a.n_cameras * a.n_pixels) return;
  float* out = a.image + p * a.n_channels;
  const int32_t face = a.triangle_ids[p];
  if (face < 0) {
    for (int64_t k = 0; k < a.n_channels; ++k) out[k] = 0;
    return;
  }
  const Corners corners = corners_of(a, p / a.n_pixels, face);
  const Vec3<float> b = load3(a.barycentrics, p);
  for (int64_t k = 0; k < a.n_channels; ++k) out[k] = b.x * corners.row[0][k] + b.y * corners.row[1][k] + b.z * corners.row[2][k];
}

__global__ void __launch_bounds__(kThreads) interpolate_barycentrics_kernel(InterpolateArgs<float> a) {
  const int64_t p = thread_index();
  if (p >= a.n_cameras * a.n_pixels) return;
  Vec3<float> sum{0, 0, 0};
  if (a.triangle_ids[p] >= 0) {
    const Corners corners = corners_of(a, p / a.n_pixels, a.triangle_ids[p]);
    const float* v = a.v_image + p * a.n_channels;
    for (int64_t k = 0; k < a.n_channels; ++k) sum += Vec3<float>{corners.row[0][k], corners.row[1][k], corners.row[2][k]} * v[k];
  }
  store3(a.v_barycentrics, p, sum);
}

// The triangle of each pixel among those of all cameras, -1 for none.
__global__ void __launch_bounds__(kThreads) interpolate_keys_kernel(InterpolateArgs<float> a, int32_t* keys) {
  const int64_t p = thread_index();
  if (p >= a.n_cameras * a.n_pixels) return;
  const int32_t face = a.triangle_ids[p];
  keys[p] = face < 0 ? -1 : int32_t(p / a.n_pixels * a.n_faces + face);
}

// v_corners: [C, F, 3, A]. A warp a triangle; lane l takes its pixels l, l + 32, ...
__global__ void __launch_bounds__(kThreads) interpolate_triangles_kernel(InterpolateArgs<float> a, Groups by_triangle, double* v_corners) {
  const int64_t t = thread_index() / kWarp;
  if (t >= a.n_cameras * a.n_faces) return;  // whole warps
  const uint32_t begin = by_triangle.begin[t], end = by_triangle.begin[t + 1];
  for (int64_t k = 0; k < a.n_channels; ++k) {
    Vec3<double> sum{0, 0, 0};
    for (uint32_t i = begin + uint32_t(lane_index()); i < end; i += kWarp) {
      const int64_t p = by_triangle.members[i];
      const Vec3<float> b = load3(a.barycentrics, p);
      sum += Vec3<double>{b.x, b.y, b.z} * double(a.v_image[p * a.n_channels + k]);
    }
    if (end > begin) sum = {warp_sum(sum.x), warp_sum(sum.y), warp_sum(sum.z)};  // the same for all lanes
    if (lane_index() != 0) continue;
    double* out = v_corners + 3 * t * a.n_channels + k;
    out[0] = sum.x;
    out[a.n_channels] = sum.y;
    out[2 * a.n_channels] = sum.z;
  }
}

// A thread an attribute of a vertex; where all cameras see one mesh, it sums over them.
__global__ void __launch_bounds__(kThreads) interpolate_vertices_kernel(InterpolateArgs<float> a, Groups by_vertex, const double* v_corners) {
  const int64_t o = thread_index();
  if (o >= a.n_meshes * a.n_vertices * a.n_channels) return;
  const int64_t k = o % a.n_channels, v = o / a.n_channels % a.n_vertices, mesh = o / a.n_channels / a.n_vertices;
  const int64_t first = a.n_meshes == 1 ? 0 : mesh, last = a.n_meshes == 1 ? a.n_cameras : mesh + 1;
  double sum = 0;
  for (int64_t c = first; c < last; ++c) {
    for (uint32_t i = by_vertex.begin[v]; i < by_vertex.begin[v + 1]; ++i) {
      sum += v_corners[(3 * c * a.n_faces + by_vertex.members[i]) * a.n_channels + k];
    }
  }
  a.v_attributes[o] = float(sum);
}

}  // namespace

void interpolate_fwd(const InterpolateArgs<float>& a, Stream stream) {
  launch("interpolate_fwd", interpolate_fwd_kernel, blocks_for(a.n_cameras * a.n_pixels), kThreads, 0, stream, a);
}

void interpolate_bwd(const InterpolateArgs<float>& a, Stream stream) {
  const char* name = "interpolate_bwd";
  const int64_t n_pixels = a.n_cameras * a.n_pixels, n_triangles = a.n_cameras * a.n_faces;
  if (a.v_barycentrics) launch(name, interpolate_barycentrics_kernel, blocks_for(n_pixels), kThreads, 0, stream, a);
  if (!a.v_attributes) return;
  int32_t* keys = stream.scratch<int32_t>(n_pixels);
  double* v_corners = stream.scratch<double>(3 * n_triangles * a.n_channels);
  launch(name, interpolate_keys_kernel, blocks_for(n_pixels), kThreads, 0, stream, a, keys);
  const Groups by_triangle = make_groups(name, keys, n_pixels, n_triangles, stream);
  const Groups by_vertex = make_groups(name, a.faces, 3 * a.n_faces, a.n_vertices, stream);
  launch(name, interpolate_triangles_kernel, blocks_for(kWarp * n_triangles), kThreads, 0, stream, a, by_triangle, v_corners);
  launch(name, interpolate_vertices_kernel, blocks_for(a.n_meshes * a.n_vertices * a.n_channels), kThreads, 0, stream, a, by_vertex, v_corners);
}

}  // namespace gaf::cuda
