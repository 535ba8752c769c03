// Forward: a thread for each Gaussian of each batch element. Backward, in three kernels without atomics:
//   local     a thread for each Gaussian sums its own gradients over the batch;
//   faces     eight lanes for each face of each batch element sum the frame's gradient over the face's Gaussians (sorted by face);
//   vertices  a thread for each vertex sums over the corners that meet there (sorted by vertex).
// The last two run only where the vertices' gradient is asked for, and so does the sorting.
#include "device/groups.h"
#include "device/launch.h"
#include "device/reduce.h"
#include "math/triangle.h"
#include "ops/bind_triangles.h"

namespace gaf::cuda {
namespace {

using BindArgs = BindTrianglesArgs<float>;
constexpr int kFaceLanes = 8;  // a face carries about ten Gaussians

struct FaceVertices {
  Vec3<float> v0, v1, v2;
};

__device__ __forceinline__ FaceVertices corners_of(const BindArgs& a, int64_t b, int64_t face) {
  const float* vertices = a.vertices + 3 * b * a.n_vertices;
  const int64_t* f = a.faces + 3 * face;
  return {load3(vertices, f[0]), load3(vertices, f[1]), load3(vertices, f[2])};
}

__device__ __forceinline__ LocalGaussian<float> local_of(const BindArgs& a, int64_t i) {
  return {load3(a.means, i), load4(a.quats, i), load3(a.log_scales, i)};
}

__device__ __forceinline__ WorldGaussian<float> v_world_of(const BindArgs& a, int64_t o) {
  return {load3(a.v_world_means, o), load4(a.v_world_quats, o), load3(a.v_world_scales, o)};
}

__global__ void __launch_bounds__(kThreads) bind_fwd_kernel(BindArgs a) {
  const int64_t o = thread_index();
  if (o >= a.n_batch * a.n_gaussians) return;
  const int64_t b = o / a.n_gaussians, i = o - b * a.n_gaussians;
  const FaceVertices c = corners_of(a, b, a.binding[i]);
  const WorldGaussian<float> w = bind_gaussian(triangle_frame(c.v0, c.v1, c.v2), local_of(a, i));
  store3(a.world_means, o, w.mean);
  store4(a.world_quats, o, w.quat);
  store3(a.world_scales, o, w.scale);
}

__global__ void __launch_bounds__(kThreads) bind_local_kernel(BindArgs a) {
  const int64_t i = thread_index();
  if (i >= a.n_gaussians) return;
  const LocalGaussian<float> local = local_of(a, i);
  const int64_t face = a.binding[i];
  LocalGaussian<float> sum{};
  for (int64_t b = 0; b < a.n_batch; ++b) {
    const FaceVertices c = corners_of(a, b, face);
    const TriangleFrame<float> frame = triangle_frame(c.v0, c.v1, c.v2);
    TriangleFrameGrad<float> unused{};
    const LocalGaussian<float> v = bind_gaussian_vjp(frame, local, bind_gaussian(frame, local), v_world_of(a, b * a.n_gaussians + i), unused);
    sum = {sum.mean + v.mean, sum.quat + v.quat, sum.log_scale + v.log_scale};
  }
  store3(a.v_means, i, sum.mean);
  store4(a.v_quats, i, sum.quat);
  store3(a.v_log_scales, i, sum.log_scale);
}

// All lanes get the sum over the kFaceLanes lanes around them. The whole warp must call.
__device__ __forceinline__ float lanes_sum(float v) {
#pragma unroll
  for (int offset = kFaceLanes / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(kFullMask, v, offset);
  return v;
}
__device__ __forceinline__ Vec3<float> lanes_sum(Vec3<float> v) { return {lanes_sum(v.x), lanes_sum(v.y), lanes_sum(v.z)}; }

// v_corners: [B, F, 3, 3]
__global__ void __launch_bounds__(kThreads) bind_faces_kernel(BindArgs a, Groups by_face, float* v_corners) {
  const int64_t o = thread_index() / kFaceLanes;
  const bool exists = o < a.n_batch * a.n_faces;
  const int64_t b = exists ? o / a.n_faces : 0, face = exists ? o - b * a.n_faces : 0;
  const uint32_t begin = exists ? by_face.begin[face] : 0, end = exists ? by_face.begin[face + 1] : 0;
  FaceVertices c{};
  TriangleFrame<float> frame{};
  TriangleFrameGrad<float> g{};
  if (end > begin) {
    c = corners_of(a, b, face);
    frame = triangle_frame(c.v0, c.v1, c.v2);
  }
  for (uint32_t k = begin + threadIdx.x % kFaceLanes; k < end; k += kFaceLanes) {
    const int64_t i = by_face.members[k];
    const LocalGaussian<float> local = local_of(a, i);
    bind_gaussian_vjp(frame, local, bind_gaussian(frame, local), v_world_of(a, b * a.n_gaussians + i), g);
  }
  g.v_rotation = {lanes_sum(g.v_rotation.c0), lanes_sum(g.v_rotation.c1), lanes_sum(g.v_rotation.c2)};
  g.v_center = lanes_sum(g.v_center);
  g.v_scale = lanes_sum(g.v_scale);
  g.v_quat = {lanes_sum(g.v_quat.w), lanes_sum(g.v_quat.x), lanes_sum(g.v_quat.y), lanes_sum(g.v_quat.z)};
  if (!exists || threadIdx.x % kFaceLanes != 0) return;
  const TriangleGrad<float> v = end > begin ? triangle_frame_vjp(frame, c.v0, c.v2, g) : TriangleGrad<float>{};
  store3(v_corners, 3 * o, v.v0);
  store3(v_corners, 3 * o + 1, v.v1);
  store3(v_corners, 3 * o + 2, v.v2);
}

__global__ void __launch_bounds__(kThreads) bind_vertices_kernel(BindArgs a, Groups by_vertex, const float* v_corners) {
  const int64_t o = thread_index();
  if (o >= a.n_batch * a.n_vertices) return;
  const int64_t b = o / a.n_vertices, v = o - b * a.n_vertices;
  Vec3<float> sum{0, 0, 0};
  for (uint32_t k = by_vertex.begin[v]; k < by_vertex.begin[v + 1]; ++k) sum += load3(v_corners, 3 * b * a.n_faces + by_vertex.members[k]);
  store3(a.v_vertices, o, sum);
}

}  // namespace

void bind_triangles_fwd(const BindArgs& a, Stream stream) {
  launch("bind_triangles_fwd", bind_fwd_kernel, blocks_for(a.n_batch * a.n_gaussians), kThreads, 0, stream, a);
}

void bind_triangles_bwd(const BindArgs& a, Stream stream) {
  const char* name = "bind_triangles_bwd";
  launch(name, bind_local_kernel, blocks_for(a.n_gaussians), kThreads, 0, stream, a);
  if (!a.v_vertices) return;
  const Groups by_face = make_groups(name, a.binding, a.n_gaussians, a.n_faces, stream);
  const Groups by_vertex = make_groups(name, a.faces, 3 * a.n_faces, a.n_vertices, stream);
  float* v_corners = stream.scratch<float>(9 * a.n_batch * a.n_faces);
  launch(name, bind_faces_kernel, blocks_for(kFaceLanes * a.n_batch * a.n_faces), kThreads, 0, stream, a, by_face, v_corners);
  launch(name, bind_vertices_kernel, blocks_for(a.n_batch * a.n_vertices), kThreads, 0, stream, a, by_vertex, v_corners);
}

}  // namespace gaf::cuda
