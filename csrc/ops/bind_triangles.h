// Contract of bind_triangles: what every backend reads and writes.
#pragma once
#include <cstdint>

#include "stream.h"

namespace gaf {

template <class T>
struct BindTrianglesArgs {
  int64_t n_batch, n_vertices, n_faces, n_gaussians;
  const T* vertices;       // [B, V, 3] world, metres
  const int64_t* faces;    // [F, 3] vertex numbers, within range
  const int64_t* binding;  // [N] face numbers, within range
  const T* means;          // [N, 3] local, in units of the triangle's scale
  const T* quats;          // [N, 4] local, wxyz, any length
  const T* log_scales;     // [N, 3] local
  T* world_means;          // [B, N, 3] out, metres
  T* world_quats;          // [B, N, 4] out, unit length
  T* world_scales;         // [B, N, 3] out, metres
  // backward only
  const T* v_world_means;   // [B, N, 3]
  const T* v_world_quats;   // [B, N, 4]
  const T* v_world_scales;  // [B, N, 3]
  T* v_vertices;            // [B, V, 3] out, or null when not needed
  T* v_means;               // [N, 3] out
  T* v_quats;               // [N, 4] out
  T* v_log_scales;          // [N, 3] out
};

namespace cpu {
template <class T>
void bind_triangles_fwd(const BindTrianglesArgs<T>& a, int threads);
template <class T>
void bind_triangles_bwd(const BindTrianglesArgs<T>& a, int threads);
}  // namespace cpu

namespace cuda {
void bind_triangles_fwd(const BindTrianglesArgs<float>& a, Stream stream);
void bind_triangles_bwd(const BindTrianglesArgs<float>& a, Stream stream);
}  // namespace cuda

}  // namespace gaf
