#include "ops/bind_triangles.h"

#include <vector>

#include "groups.h"
#include "math/triangle.h"
#include "parallel.h"

namespace gaf::cpu {
namespace {

constexpr int64_t kGrain = 1024;  // items a chunk: about 50 us of work

template <class T>
TriangleFrame<T> frame_of(const BindTrianglesArgs<T>& a, int64_t b, int64_t face) {
  const T* vertices = a.vertices + 3 * b * a.n_vertices;
  const int64_t* f = a.faces + 3 * face;
  return triangle_frame(load3(vertices, f[0]), load3(vertices, f[1]), load3(vertices, f[2]));
}

template <class T>
LocalGaussian<T> local_of(const BindTrianglesArgs<T>& a, int64_t i) {
  return {load3(a.means, i), load4(a.quats, i), load3(a.log_scales, i)};
}

// Gradients of all Gaussians of one face in one batch element; the local ones are added, which is safe because a Gaussian has one face.
template <class T>
TriangleGrad<T> face_vjp(const BindTrianglesArgs<T>& a, const Groups& by_face, int64_t b, int64_t face) {
  const TriangleFrame<T> frame = frame_of(a, b, face);
  TriangleFrameGrad<T> g{};
  for (const int64_t i : by_face.of(face)) {
    const int64_t o = b * a.n_gaussians + i;
    const LocalGaussian<T> local = local_of(a, i);
    const WorldGaussian<T> v = {load3(a.v_world_means, o), load4(a.v_world_quats, o), load3(a.v_world_scales, o)};
    const LocalGaussian<T> v_local = bind_gaussian_vjp(frame, local, bind_gaussian(frame, local), v, g);
    store3(a.v_means, i, load3(a.v_means, i) + v_local.mean);
    store4(a.v_quats, i, load4(a.v_quats, i) + v_local.quat);
    store3(a.v_log_scales, i, load3(a.v_log_scales, i) + v_local.log_scale);
  }
  const T* vertices = a.vertices + 3 * b * a.n_vertices;
  return triangle_frame_vjp(frame, load3(vertices, a.faces[3 * face]), load3(vertices, a.faces[3 * face + 2]), g);
}

}  // namespace

template <class T>
void bind_triangles_fwd(const BindTrianglesArgs<T>& a, int threads) {
  parallel_for(a.n_batch * a.n_gaussians, kGrain, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t o = begin; o < end; ++o) {
      const int64_t b = o / a.n_gaussians, i = o % a.n_gaussians;
      const WorldGaussian<T> w = bind_gaussian(frame_of(a, b, a.binding[i]), local_of(a, i));
      store3(a.world_means, o, w.mean);
      store4(a.world_quats, o, w.quat);
      store3(a.world_scales, o, w.scale);
    }
  });
}

// Faces first (each sums over its Gaussians in order), then vertices (each sums over its corners in order): no two threads share a sum.
template <class T>
void bind_triangles_bwd(const BindTrianglesArgs<T>& a, int threads) {
  const Groups by_face(a.binding, a.n_gaussians, a.n_faces);
  std::vector<T> v_corners(a.v_vertices ? 9 * a.n_batch * a.n_faces : 0);
  parallel_for(a.n_faces, kGrain, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t face = begin; face < end; ++face) {
      for (const int64_t i : by_face.of(face)) {
        store3(a.v_means, i, {0, 0, 0});
        store4(a.v_quats, i, {0, 0, 0, 0});
        store3(a.v_log_scales, i, {0, 0, 0});
      }
      if (by_face.of(face).empty()) continue;
      for (int64_t b = 0; b < a.n_batch; ++b) {
        const TriangleGrad<T> g = face_vjp(a, by_face, b, face);
        if (!a.v_vertices) continue;
        T* corners = v_corners.data() + 9 * (b * a.n_faces + face);
        store3(corners, 0, g.v0);
        store3(corners, 1, g.v1);
        store3(corners, 2, g.v2);
      }
    }
  });
  if (!a.v_vertices) return;
  const Groups by_vertex(a.faces, 3 * a.n_faces, a.n_vertices);
  parallel_for(a.n_vertices, kGrain, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t v = begin; v < end; ++v) {
      for (int64_t b = 0; b < a.n_batch; ++b) {
        Vec3<T> sum{0, 0, 0};
        for (const int64_t corner : by_vertex.of(v)) sum += load3(v_corners.data(), 3 * b * a.n_faces + corner);
        store3(a.v_vertices, b * a.n_vertices + v, sum);
      }
    }
  });
}

template void bind_triangles_fwd(const BindTrianglesArgs<float>&, int);
template void bind_triangles_fwd(const BindTrianglesArgs<double>&, int);
template void bind_triangles_bwd(const BindTrianglesArgs<float>&, int);
template void bind_triangles_bwd(const BindTrianglesArgs<double>&, int);

}  // namespace gaf::cpu
