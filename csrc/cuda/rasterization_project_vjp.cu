// Gradients of splats to gradients of Gaussians and cameras. A thread is one Gaussian, which sums over its cameras in their order; a camera's
// gradient sums over warps in theirs.
#include "device/gaussians.h"
#include "device/launch.h"

namespace gaf::cuda {
namespace {

constexpr const char* kProjectBwd = "rasterization_project_bwd";
constexpr int kVjpThreads = 64;
constexpr int kViewFields = 16;  // of a camera: rotation 9, translation 3, position 3

struct GaussianSums {
  GaussianGrad<float> geometry;
  float opacity;
};

struct CameraGrad {
  Mat3<float> rotation;
  Vec3<float> translation, position;
};

// The gradients of a splat in this camera.
struct SplatGrad {
  ScreenGrad<float> screen;
  float log_opacity;
  float color[kSplatChannels];
};

__device__ __forceinline__ SplatGrad load_splat_grad(const RasterizationProjectArgs<float>& a, int64_t camera, int64_t i) {
  const int64_t groups = (a.n_gaussians + kSplatGroup - 1) / kSplatGroup, at = camera * a.n_gaussians + i;
  const float* field = a.v_splats + (camera * groups + i / kSplatGroup) * 16 * kSplatGroup + i % kSplatGroup;
  const auto of = [field](int f) { return field[f * kSplatGroup]; };
  SplatGrad v = {{0, 0, of(kGradXX), of(kGradXY), of(kGradYY), 0}, of(kGradLogOpacity), {of(kGradColor), of(kGradColor + 1), of(kGradColor + 2), of(kGradColor + 3)}};
  if (a.v_means2d) v.screen.x = a.v_means2d[2 * at], v.screen.y = a.v_means2d[2 * at + 1];
  if (a.v_depths) v.screen.depth = a.v_depths[at];
  if (a.append_depth) {
    const int n = !a.colors ? 0 : a.sh_degree >= 0 ? 3 : int(a.n_colors);
#pragma unroll
    for (int c = 0; c < kSplatChannels; ++c) {
      if (c == n) v.screen.depth += v.color[c];
    }
  }
  return v;
}

// Adds to the colours' gradient, and returns the mean's through the viewing direction. v_color: gradient of the colours, in place of which that
// of the clamped ones is left.
template <int kDegree>
__device__ __forceinline__ Vec3<float> harmonics_vjp(Vec3<float> mean, Vec3<float> position, const float* harmonics, const float* v_color,
                                                     float* v_harmonics) {
  constexpr int kBases = sh_bases(kDegree);
  const ViewDirection<float> direction = view_direction(mean, position);
  float basis[kBases], v_basis[kBases] = {};
  sh_basis(kDegree, direction.unit, basis);
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    const float v = sh_channel<kDegree>(basis, harmonics, c) > 0 ? v_color[c] : 0.f;  // colours are clamped from below
#pragma unroll
    for (int k = 0; k < kBases; ++k) {
      v_harmonics[3 * k + c] = fma_(basis[k], v, v_harmonics[3 * k + c]);
      v_basis[k] = fma_(harmonics[3 * k + c], v, v_basis[k]);
    }
  }
  return view_direction_vjp(direction, sh_basis_vjp(kDegree, direction.unit, v_basis));
}

__device__ __forceinline__ void add(GaussianSums& sum, const GaussianGrad<float>& d, Vec3<float> v_direction, float opacity) {
  sum.geometry.mean += d.mean + v_direction;
  sum.geometry.scale += d.scale;
  sum.geometry.quat = sum.geometry.quat + d.quat;
  sum.opacity += opacity;
}

// One camera's share. `harmonics` and `v_colors` are this Gaussian's, in shared memory.
template <int kDegree>
__device__ __forceinline__ void add_camera(const RasterizationProjectArgs<float>& a, const PinholeCamera<float>& camera, int64_t c, int64_t i,
                                           const float* harmonics, float* v_colors, GaussianSums& sum, CameraGrad& v_camera) {
  const GaussianInput in = load_gaussian(a, c, i);
  SplatGrad v = load_splat_grad(a, c, i);
  Vec3<float> v_direction = {0, 0, 0};
  if constexpr (kDegree >= 0) {
    v_direction = harmonics_vjp<kDegree>(in.mean, camera.position, harmonics, v.color, v_colors);
  } else {
#pragma unroll
    for (int k = 0; k < kSplatChannels; ++k) v_colors[k] += v.color[k];
  }
  const ProjectedGaussian<float> g = project_gaussian(camera, in.mean, in.quat, in.scale, float(a.eps2d));
  if (a.antialiased) {
    // The splat's log-opacity is that of the Gaussian plus that of the compensation.
    const float compensation = blur_compensation(g);
    blur_compensation_vjp(g, float(a.eps2d), compensation, v.log_opacity / compensation, v.screen);
  }
  const GaussianGrad<float> d = project_gaussian_vjp(camera, g, in.mean, in.scale, v.screen, v_camera.rotation, v_camera.translation);
  v_camera.position = -v_direction;
  add(sum, d, v_direction, v.log_opacity / in.opacity);
}

__device__ __forceinline__ void write_gaussian(const RasterizationProjectArgs<float>& a, int64_t camera, int64_t i, const GaussianSums& g) {
  const int64_t at = (a.gaussians_per_camera ? camera * a.n_gaussians : 0) + i;
  store3(a.v_means, at, g.geometry.mean);
  store4(a.v_quats, at, g.geometry.quat);
  store3(a.v_scales, at, g.geometry.scale);
  a.v_opacities[at] = g.opacity;
}

// v_colors [32, stride] in shared memory: 32 Gaussians from `first` on; coefficients beyond the degree get 0. All lanes must call.
template <int kDegree>
__device__ __forceinline__ void write_harmonics(const RasterizationProjectArgs<float>& a, int64_t camera, int64_t first, const float* v_colors) {
  constexpr int kUsed = 3 * sh_bases(kDegree);
  const int64_t left = a.n_gaussians - first;
  const int n = left <= 0 ? 0 : int(left < kWarp ? left : kWarp), columns = int(a.n_colors);
  float* out = a.v_colors + ((a.colors_per_camera ? camera * a.n_gaussians : 0) + first) * a.n_colors;
  __syncwarp();
  for (int i = lane_index(); i < n * columns; i += kWarp) {
    const int row = i / columns, column = i % columns;
    out[i] = column < kUsed ? v_colors[row * sh_stride(kDegree) + column] : 0.f;
  }
  __syncwarp();
}

// partial [warps, C, 16]: this warp's share of a camera's gradient. All lanes must call.
__device__ __forceinline__ void write_camera(const CameraGrad& g, float* partial) {
  const float fields[kViewFields] = {g.rotation.c0.x, g.rotation.c0.y, g.rotation.c0.z, g.rotation.c1.x, g.rotation.c1.y, g.rotation.c1.z,
                                     g.rotation.c2.x, g.rotation.c2.y, g.rotation.c2.z, g.translation.x, g.translation.y, g.translation.z,
                                     g.position.x,    g.position.y,    g.position.z,    0};
#pragma unroll
  for (int f = 0; f < kViewFields - 1; ++f) {
    const float sum = warp_sum(fields[f]);
    if (lane_index() == f) partial[f] = sum;
  }
}

// Numbers of a Gaussian's colours in shared memory.
__host__ __device__ constexpr int color_stride(int degree) { return degree < 0 ? kSplatChannels + 1 : sh_stride(degree); }

template <int kDegree>
__global__ void __launch_bounds__(kVjpThreads) project_gaussians_vjp(RasterizationProjectArgs<float> a, float* view_parts) {
  constexpr int kStride = color_stride(kDegree);
  GAF_SHARED(PinholeCamera<float>, camera);
  GAF_SHARED(float, harmonics, [kDegree < 0 ? 1 : kVjpThreads * kStride]);
  GAF_SHARED(float, v_colors, [kVjpThreads * kStride]);
  const int64_t i = thread_index(), n = a.n_gaussians, warp = i / kWarp;
  float* mine = v_colors + threadIdx.x * kStride;
  GaussianSums sum = {};
  for (int k = 0; k < kStride; ++k) mine[k] = 0;
  for (int64_t c = 0; c < a.n_cameras; ++c) {
    const bool last = c + 1 == a.n_cameras;
    __syncthreads();
    if (threadIdx.x == 0) camera = pinhole_camera(a.viewmats + 16 * c, a.Ks + 9 * c, int(a.width), int(a.height));
    if constexpr (kDegree >= 0) {
      if (c == 0 || a.colors_per_camera) stage_harmonics<kDegree>(a, c, warp * kWarp, harmonics + warp_index() * kWarp * kStride);
    }
    __syncthreads();
    CameraGrad v_camera = {};
    const bool visible = i < n && a.radii[2 * (c * n + i)] > 0;
    if (visible) add_camera<kDegree>(a, camera, c, i, harmonics + (kDegree < 0 ? 0 : threadIdx.x * kStride), mine, sum, v_camera);
    if (view_parts) write_camera(v_camera, view_parts + (warp * a.n_cameras + c) * kViewFields);
    if (i < n && (last || a.gaussians_per_camera)) {
      write_gaussian(a, c, i, sum);
      sum = {};
    }
    if (!a.v_colors || !(last || a.colors_per_camera)) continue;
    if constexpr (kDegree >= 0) {
      write_harmonics<kDegree>(a, c, warp * kWarp, v_colors + warp_index() * kWarp * kStride);
    } else if (i < n && a.n_colors <= kSplatChannels) {
      float* out = a.v_colors + ((a.colors_per_camera ? c * n : 0) + i) * a.n_colors;
      for (int k = 0; k < int(a.n_colors); ++k) out[k] = mine[k];
    }
    for (int k = 0; k < kStride; ++k) mine[k] = 0;
  }
}

// A block a camera: sixteen threads a field, each with every sixteenth warp.
__global__ void __launch_bounds__(kThreads) sum_cameras(RasterizationProjectArgs<float> a, const float* view_parts, int64_t n_warps) {
  GAF_SHARED(double, parts, [kThreads]);
  GAF_SHARED(float, fields, [kViewFields]);
  const int64_t c = blockIdx.x;
  const int field = int(threadIdx.x) % kViewFields, part = int(threadIdx.x) / kViewFields;
  double sum = 0;
  if (field < kViewFields - 1) {
    for (int64_t w = part; w < n_warps; w += kThreads / kViewFields) sum += double(view_parts[(w * a.n_cameras + c) * kViewFields + field]);
  }
  parts[threadIdx.x] = sum;
  __syncthreads();
  if (part == 0) {
    for (int p = 1; p < kThreads / kViewFields; ++p) sum += parts[p * kViewFields + field];
    fields[field] = float(sum);
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  Mat3<float> r = {load3(fields, 0), load3(fields, 1), load3(fields, 2)};
  Vec3<float> t = load3(fields, 3);
  const PinholeCamera<float> camera = pinhole_camera(a.viewmats + 16 * c, a.Ks + 9 * c, int(a.width), int(a.height));
  camera_position_vjp(camera, load3(fields, 4), r, t);
  const Vec3<float> columns[4] = {r.c0, r.c1, r.c2, t};
  float* v = a.v_viewmats + 16 * c;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    v[j] = columns[j].x;
    v[4 + j] = columns[j].y;
    v[8 + j] = columns[j].z;
    v[12 + j] = 0;
  }
}

}  // namespace

void rasterization_project_bwd(const RasterizationProjectArgs<float>& a, Stream stream) {
  const int64_t blocks = (a.n_gaussians + kVjpThreads - 1) / kVjpThreads, n_warps = blocks * (kVjpThreads / 32);
  float* view_parts = a.v_viewmats ? stream.scratch<float>(n_warps * a.n_cameras * kViewFields) : nullptr;
  with_degree(a.colors ? a.sh_degree : -1, [&](auto degree) {
    launch(kProjectBwd, project_gaussians_vjp<decltype(degree)::value>, dim3(unsigned(blocks)), dim3(kVjpThreads), 0, stream, a, view_parts);
  });
  if (a.v_viewmats) launch(kProjectBwd, sum_cameras, dim3(unsigned(a.n_cameras)), dim3(kThreads), 0, stream, a, view_parts, n_warps);
}

}  // namespace gaf::cuda
