// Contract of linear_blend_skinning: what every backend reads and writes.
#pragma once
#include <cstdint>

#include "stream.h"

namespace gaf {

template <class T>
struct LinearBlendSkinningArgs {
  int64_t n_batch, n_vertices, n_joints;
  const T* vertices;       // [B, V, 3] rest pose, metres
  const T* weights;        // [V, J]
  const T* axis_angles;    // [B, J, 3] of each joint, relative to its parent, radians
  const T* joints;         // [B, J, 3] rest pose, metres
  const int64_t* parents;  // [J] -1 or a number below the joint's own
  const T* translations;   // [B, 3] metres
  T* posed;                // [B, V, 3] out
  T* transforms;           // [B, J, 12] out of forward, in of backward: columns of the rotation, translation
  // backward only
  const T* v_posed;  // [B, V, 3]
  T* v_vertices;     // [B, V, 3] out
  T* v_axis_angles;  // [B, J, 3] out
  T* v_joints;       // [B, J, 3] out
  T* v_translations; // [B, 3] out
};

namespace cpu {
template <class T>
void linear_blend_skinning_fwd(const LinearBlendSkinningArgs<T>& a, int threads);
template <class T>
void linear_blend_skinning_bwd(const LinearBlendSkinningArgs<T>& a, int threads);
}  // namespace cpu

namespace cuda {
void linear_blend_skinning_fwd(const LinearBlendSkinningArgs<float>& a, Stream stream);
void linear_blend_skinning_bwd(const LinearBlendSkinningArgs<float>& a, Stream stream);
}  // namespace cuda

}  // namespace gaf
