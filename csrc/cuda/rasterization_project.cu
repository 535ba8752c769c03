// Gaussians to splats: a thread is one Gaussian seen by one camera.
#include "device/gaussians.h"
#include "device/launch.h"

namespace gaf::cuda {
namespace {

constexpr const char* kProjectFwd = "rasterization_project_fwd";
constexpr int kProjectThreads = 128;

// Colours of the splat. A channel beside the splat that is not finite makes the first one not finite, so that the splat is left out.
template <int kDegree>
__device__ __forceinline__ void splat_colors(const RasterizationProjectArgs<float>& a, int64_t camera, int64_t i, const float* harmonics,
                                             Vec3<float> direction, float depth, float* color) {
  int n = 0;
  if constexpr (kDegree >= 0) {
    float basis[sh_bases(kDegree)];
    sh_basis(kDegree, direction, basis);
#pragma unroll
    for (int c = 0; c < 3; ++c) color[c] = max_(0.f, sh_channel<kDegree>(basis, harmonics, c));  // in this order NaN stays NaN
    n = 3;
  } else if (a.colors && a.n_colors <= kSplatChannels) {
    const float* row = colors_of(a, camera) + i * a.n_colors;
    n = int(a.n_colors);
#pragma unroll
    for (int c = 0; c < kSplatChannels; ++c) {
      if (c < n) color[c] = row[c];
    }
  } else if (a.colors) {
    const float* row = colors_of(a, camera) + i * a.n_colors;
    for (int64_t c = 0; c < a.n_colors; ++c) color[0] += row[c] - row[c];
  }
  if (!a.append_depth) return;
#pragma unroll
  for (int c = 0; c < kSplatChannels; ++c) {
    if (c == n) color[c] = depth;
  }
}

struct SplatOut {
  bool visible;
  float fields[10];  // of Splat
  float conic[3];
  float opacity, depth;
  int radius_x, radius_y;
};

__device__ __forceinline__ void write_splat(const RasterizationProjectArgs<float>& a, int64_t camera, int64_t rows, int64_t i, const SplatOut& s) {
  float4* row = reinterpret_cast<float4*>(a.splats) + 4 * (camera * rows + i);
  const float* f = s.fields;
  row[0] = make_float4(f[0], f[1], f[2], f[3]);
  row[1] = make_float4(f[4], f[5], f[6], f[7]);
  row[2] = make_float4(f[8], f[9], 0, 0);
  row[3] = make_float4(0, 0, 0, 0);
  if (i >= a.n_gaussians) return;
  const int64_t at = camera * a.n_gaussians + i;
  reinterpret_cast<int2*>(a.radii)[at] = make_int2(s.radius_x, s.radius_y);
  reinterpret_cast<float2*>(a.means2d)[at] = make_float2(f[0], f[1]);
  a.depths[at] = s.depth;
  for (int c = 0; c < 3; ++c) a.conics[3 * at + c] = s.conic[c];
  a.splat_opacities[at] = s.opacity;
}

// Also says whether the Gaussian is left out because a number of its is not finite.
__device__ __forceinline__ bool finish_splat(const RasterizationProjectArgs<float>& a, const ProjectedGaussian<float>& g, float given_opacity,
                                             const float* color, SplatOut& out) {
  const float opacity = a.antialiased ? given_opacity * blur_compensation(g) : given_opacity;
  const Whitening<float> w = whitening(g.xy, g.yy, g.det);
  const float log2_opacity = log2_(max_(opacity, 1e-30f));
  // x - x is 0 for every finite x and NaN otherwise. Behind the camera only the depth must be finite to know that.
  const float place = (g.p.z - g.p.z) + (given_opacity - given_opacity);
  float shape = (g.x - g.x) + (g.y - g.y) + (w.u_x - w.u_x) + (w.u_y - w.u_y) + (w.v_y - w.v_y) + (g.xx - g.xx) + (g.det - g.det) + (opacity - opacity);
#pragma unroll
  for (int c = 0; c < kSplatChannels; ++c) shape += color[c] - color[c];
  const bool in_front = g.p.z > 0 && g.p.z >= float(a.near_plane) && g.p.z <= float(a.far_plane), finite = place + shape == 0;
  const float k = extent(log2_opacity), limit = float(1 << 20);  // radii of 10^6 pixels and more are all the same
  const float radius_x = ceilf(min_(k * sqrt_(g.xx), limit)), radius_y = ceilf(min_(k * sqrt_(g.yy), limit));
  const bool seen = opacity >= float(kAlphaMin) && g.det > 0 && max_(radius_x, radius_y) > float(a.radius_clip) && g.x + radius_x > 0 &&
                    g.x - radius_x < float(a.width) && g.y + radius_y > 0 && g.y - radius_y < float(a.height);
  out = {};
  out.visible = in_front && finite && seen;
  if (out.visible) {
    const float inv_det = 1 / g.det;
    out = {true,
           {g.x, g.y, w.u_x, w.u_y, w.v_y, log2_opacity, color[0], color[1], color[2], color[3]},
           {g.yy * inv_det, -g.xy * inv_det, g.xx * inv_det},
           opacity,
           g.p.z,
           int(radius_x),
           int(radius_y)};
  }
  return (in_front && !finite) || !(place == 0);
}

template <int kDegree>
__global__ void __launch_bounds__(kProjectThreads, 6) project_gaussians(RasterizationProjectArgs<float> a, int64_t blocks) {
  GAF_SHARED(PinholeCamera<float>, camera);
  GAF_SHARED(float, harmonics, [kProjectThreads * sh_stride(kDegree)]);
  const int64_t c = blockIdx.x / blocks, i = blockIdx.x % blocks * kProjectThreads + threadIdx.x;
  const int64_t rows = (a.n_gaussians + kSplatGroup - 1) / kSplatGroup * kSplatGroup;
  if (threadIdx.x == 0) camera = pinhole_camera(a.viewmats + 16 * c, a.Ks + 9 * c, int(a.width), int(a.height));
  if constexpr (kDegree >= 0) {
    stage_harmonics<kDegree>(a, c, i - lane_index(), harmonics + warp_index() * kWarp * sh_stride(kDegree));
  }
  __syncthreads();
  bool nonfinite = false;
  if (i < rows) {
    SplatOut out = {};
    if (i < a.n_gaussians) {
      const GaussianInput in = load_gaussian(a, c, i);
      const ProjectedGaussian<float> g = project_gaussian(camera, in.mean, in.quat, in.scale, float(a.eps2d));
      float color[kSplatChannels] = {};
      const Vec3<float> direction = kDegree > 0 ? view_direction(in.mean, camera.position).unit : Vec3<float>{0, 0, 0};
      splat_colors<kDegree>(a, c, i, harmonics + threadIdx.x * sh_stride(kDegree), direction, g.p.z, color);
      nonfinite = finish_splat(a, g, in.opacity, color, out);
    }
    write_splat(a, c, rows, i, out);
  }
  const int count = __syncthreads_count(nonfinite);
  if (threadIdx.x == 0 && count > 0) atomicAdd(reinterpret_cast<unsigned long long*>(a.n_nonfinite), (unsigned long long)(count));
}

}  // namespace

void rasterization_project_fwd(const RasterizationProjectArgs<float>& a, Stream stream) {
  fill_bytes(kProjectFwd, a.n_nonfinite, 0, sizeof(int64_t), stream);
  const int64_t blocks = blocks_a_camera(a, kProjectThreads);
  with_degree(a.colors || a.half_colors ? a.sh_degree : -1, [&](auto degree) {
    launch(kProjectFwd, project_gaussians<decltype(degree)::value>, dim3(unsigned(blocks * a.n_cameras)), dim3(kProjectThreads), 0, stream, a, blocks);
  });
}

}  // namespace gaf::cuda
