// Contract of interpolate: what every backend reads and writes.
#pragma once
#include <cstdint>

#include "stream.h"

namespace gaf {

template <class T>
struct InterpolateArgs {
  int64_t n_cameras, n_pixels;              // pixels an image
  int64_t n_meshes, n_vertices, n_channels;
  int64_t n_faces;
  const T* attributes;          // [M, V, A]; M = C, or 1 when all cameras see the same mesh
  const int64_t* faces;         // [F, 3] vertex numbers, within range
  const int32_t* triangle_ids;  // [C, P] face numbers, -1 where there is none
  const T* barycentrics;        // [C, P, 3]
  T* image;                     // [C, P, A] out, 0 where there is no triangle
  // backward only
  const T* v_image;     // [C, P, A]
  T* v_attributes;      // [M, V, A] out, or null when not needed
  T* v_barycentrics;    // [C, P, 3] out, or null when not needed
};

namespace cpu {
template <class T>
void interpolate_fwd(const InterpolateArgs<T>& a, int threads);
template <class T>
void interpolate_bwd(const InterpolateArgs<T>& a, int threads);
}  // namespace cpu

namespace cuda {
void interpolate_fwd(const InterpolateArgs<float>& a, Stream stream);
void interpolate_bwd(const InterpolateArgs<float>& a, Stream stream);
}  // namespace cuda

}  // namespace gaf
