// Contract of rasterization: two ops in a row, because the screen positions between them are a tensor that a user may ask the gradient of.
//   rasterization_project: every Gaussian seen by every camera -> splats.
//   rasterization_blend:   splats, nearest first -> image.
#pragma once
#include <cstdint>

#include "math/macros.h"
#include "stream.h"

namespace gaf {

// Splats of one camera are padded to groups of sixteen: splat (camera c, Gaussian n) is row c 16 G + n of `splats`, G = ceil(N / 16).
constexpr int kSplatGroup = 16;
constexpr int kSplatChannels = 4;  // channels that travel in a Splat

// A row of `splats`: 16 numbers, ten of them used. `x`, `y` pixels; the rest of the shape as math/blend.h whitens it.
template <class T>
struct alignas(16 * sizeof(T)) Splat {
  T x, y, u_x, u_y, v_y, log2_opacity;
  T color[4];
};

// Gradients of the splats come in the same number of values, but a group at a time: [C G, 16 fields, 16 lanes].
enum SplatGradField { kGradXX, kGradXY, kGradYY, kGradLogOpacity, kGradColor };

// A number of the call, or one that lies beside the tensors: a captured launch reads that anew at every replay.
template <class T>
struct Scalar {
  double given;
  const T* at;                  // [1], or null: `given`
  GAF_HD explicit operator T() const { return at ? *at : T(given); }
};

template <class T>
struct RasterizationProjectArgs {
  int64_t n_cameras, n_gaussians;
  int64_t width, height;        // pixels
  bool gaussians_per_camera;    // means, quats, scales, opacities have a leading [C]
  bool colors_per_camera;       // so have the colors
  bool antialiased, append_depth;
  int64_t sh_degree;            // -1: colors are colors
  int64_t n_colors;             // coefficients (K 3) or channels a Gaussian; 0 with null colors
  double near_plane, far_plane; // metres
  Scalar<T> eps2d;              // pixels^2
  double radius_clip;           // pixels
  const T* means;               // [N, 3] world, metres
  const T* quats;               // [N, 4] wxyz, any length
  const T* scales;              // [N, 3] metres
  const T* opacities;           // [N]
  const T* colors;              // [N, K, 3] with SH, else [N, D], or null; of more channels than a splat carries
                                // it matters only whether they are finite
  const T* viewmats;            // [C, 4, 4] world to camera
  const T* Ks;                  // [C, 3, 3] pixels
  T* splats;                    // [C 16 G, 16] out
  int32_t* radii;               // [C, N, 2] out, pixels, 0 where culled
  T* means2d;                   // [C, N, 2] out, pixels
  T* depths;                    // [C, N] out, metres
  T* conics;                    // [C, N, 3] out, 1/pixels^2
  T* splat_opacities;           // [C, N] out, with the compensation
  int64_t* n_nonfinite;         // [1] out: Gaussians culled because a number of theirs is not finite
  // backward only
  const T* v_splats;            // [C G, 16, 16]
  const T* v_means2d;           // [C, N, 2] or null
  const T* v_depths;            // [C, N] or null
  T* v_means;                   // like the inputs, out
  T* v_quats;
  T* v_scales;
  T* v_opacities;
  T* v_colors;                  // or null when not needed
  T* v_viewmats;                // or null when not needed
  // forward on a GPU only
  const uint16_t* half_colors;  // harmonics as IEEE halves in place of `colors`, or null
};

template <class T>
struct RasterizationBlendArgs {
  int64_t n_cameras, n_gaussians;
  int64_t width, height;    // pixels
  int64_t n_channels;       // X
  bool absgrad;
  const T* splats;          // [C 16 G, 16]
  const T* depths;          // [C, N] metres
  const int32_t* radii;     // [C, N, 2]; 0: not there
  const T* features;        // [C, N, X] when there are more channels than a splat carries, else null
  const T* backgrounds;     // [C, X] or null
  T* render;                // [C, H, W, X] out
  T* alphas;                // [C, H, W] out
  int64_t* statistics;      // [3] out: visible splats, (splat, tile) pairs, pairs blended before their tile was opaque
  // backward only
  uint8_t* kept;            // what forward left
  const T* v_render;        // [C, H, W, X]
  const T* v_alphas;        // [C, H, W], or null: zero
  T* v_splats;              // [C G, 16, 16] out
  T* v_means2d;             // [C, N, 2] out
  T* v_means2d_abs;         // [C, N, 2] out with absgrad, else null
  T* v_features;            // [C, N, X] out, or null
  T* v_backgrounds;         // [C, X] out, or null when not needed
};

// What the GPU needs to know besides, because it neither waits nor allocates: how many pairs it has room for.
struct RasterizationPairRoom {
  int64_t capacity;         // (splat, tile) pairs, below 2^31. A frame with more is drawn without pairs: as right, but slowly
  bool atomic;              // backward: sums by float atomics in place of partial sums in a fixed order; other bits in every run
};

namespace cpu {
class Scratch;
template <class T>
void rasterization_project_fwd(const RasterizationProjectArgs<T>& a, int threads);
template <class T>
void rasterization_project_bwd(const RasterizationProjectArgs<T>& a, int threads);
// Returns what backward needs; its size depends on the number of pairs.
template <class T>
Scratch rasterization_blend_fwd(const RasterizationBlendArgs<T>& a, int threads);
template <class T>
void rasterization_blend_bwd(const RasterizationBlendArgs<T>& a, int threads);
}  // namespace cpu

namespace cuda {
void rasterization_project_fwd(const RasterizationProjectArgs<float>& a, Stream stream);
void rasterization_project_bwd(const RasterizationProjectArgs<float>& a, Stream stream);
// Bytes of `kept`; depends on the sizes in `a` and the capacity only.
int64_t rasterization_blend_kept_bytes(const RasterizationBlendArgs<float>& a, const RasterizationPairRoom& room);
// With `kept` null nothing is left for backward.
void rasterization_blend_fwd(const RasterizationBlendArgs<float>& a, const RasterizationPairRoom& room, Stream stream);
void rasterization_blend_bwd(const RasterizationBlendArgs<float>& a, const RasterizationPairRoom& room, Stream stream);
}  // namespace cuda

}  // namespace gaf
