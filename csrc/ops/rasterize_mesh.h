// Contract of rasterize_mesh: what every backend reads and writes.
#pragma once
#include <cstdint>

#include "stream.h"

namespace gaf {

template <class T>
struct RasterizeMeshArgs {
  int64_t n_cameras, n_meshes, n_vertices, n_faces;
  int32_t width, height;  // pixels
  double near_plane;      // metres, > 0
  const T* vertices;      // [M, V, 3] world, metres; M = C, or 1 when all cameras see the same mesh
  const int64_t* faces;   // [F, 3] vertex numbers, within range
  const T* viewmats;      // [C, 4, 4] world to camera
  const T* Ks;            // [C, 3, 3] pixels
  int32_t* triangle_ids;  // [C, H, W] out (backward: in), -1 where there is none
  T* barycentrics;        // [C, H, W, 3] out (backward: in)
  T* depth;               // [C, H, W] out, metres, 0 where there is no triangle
  // backward only
  const T* v_barycentrics;  // [C, H, W, 3]
  const T* v_depth;         // [C, H, W]
  T* v_vertices;            // [M, V, 3] out
  T* v_viewmats;            // [C, 4, 4] out
};

namespace cpu {
template <class T>
void rasterize_mesh_fwd(const RasterizeMeshArgs<T>& a, int threads);
template <class T>
void rasterize_mesh_bwd(const RasterizeMeshArgs<T>& a, int threads);
}  // namespace cpu

namespace cuda {
void rasterize_mesh_fwd(const RasterizeMeshArgs<float>& a, Stream stream);
void rasterize_mesh_bwd(const RasterizeMeshArgs<float>& a, Stream stream);
}  // namespace cuda

}  // namespace gaf
