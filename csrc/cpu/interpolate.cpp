#include "ops/interpolate.h"

#include <algorithm>
#include <vector>

#include "triangle_sums.h"

namespace gaf::cpu {
namespace {

constexpr int64_t kGrain = 8192;  // pixels a chunk: about 50 us of work

// The attributes of a face's corners, as seen by camera c.
template <class T>
struct Corners {
  const T* row[3];  // [A] each

  Corners(const InterpolateArgs<T>& a, int64_t c, int32_t face) {
    const T* mesh = a.attributes + (a.n_meshes == 1 ? 0 : c) * a.n_vertices * a.n_channels;
    for (int i = 0; i < 3; ++i) row[i] = mesh + a.faces[3 * int64_t(face) + i] * a.n_channels;
  }
};

template <class T>
void v_barycentrics(const InterpolateArgs<T>& a, int threads) {
  parallel_for(a.n_cameras * a.n_pixels, kGrain, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) {
      T* out = a.v_barycentrics + 3 * p;
      out[0] = out[1] = out[2] = 0;
      if (a.triangle_ids[p] < 0) continue;
      const Corners<T> corners(a, p / a.n_pixels, a.triangle_ids[p]);
      const T* v = a.v_image + p * a.n_channels;
      for (int i = 0; i < 3; ++i) {
        for (int64_t k = 0; k < a.n_channels; ++k) out[i] += corners.row[i][k] * v[k];
      }
    }
  });
}

// Adds camera c's part of the gradient to v [V, A].
template <class T>
void v_attributes(const InterpolateArgs<T>& a, int64_t c, TriangleSums& sums, std::vector<double>& v) {
  const T* barycentrics = a.barycentrics + 3 * c * a.n_pixels;
  const T* v_image = a.v_image + c * a.n_pixels * a.n_channels;
  const auto add = [&](int64_t p, int32_t, double* sum) {
    for (int i = 0; i < 3; ++i) {
      const double b = barycentrics[3 * p + i];
      for (int64_t k = 0; k < a.n_channels; ++k) sum[i * a.n_channels + k] += b * v_image[p * a.n_channels + k];
    }
  };
  const auto emit = [&](int32_t face, const double* sum) {
    for (int i = 0; i < 3; ++i) {
      double* row = v.data() + a.faces[3 * int64_t(face) + i] * a.n_channels;
      for (int64_t k = 0; k < a.n_channels; ++k) row[k] += sum[i * a.n_channels + k];
    }
  };
  sums.run(a.triangle_ids + c * a.n_pixels, a.n_pixels, add, emit);
}

}  // namespace

template <class T>
void interpolate_fwd(const InterpolateArgs<T>& a, int threads) {
  parallel_for(a.n_cameras * a.n_pixels, kGrain, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) {
      T* out = a.image + p * a.n_channels;
      if (a.triangle_ids[p] < 0) {
        std::fill_n(out, a.n_channels, T(0));
        continue;
      }
      const Corners<T> corners(a, p / a.n_pixels, a.triangle_ids[p]);
      const T* b = a.barycentrics + 3 * p;
      for (int64_t k = 0; k < a.n_channels; ++k) out[k] = b[0] * corners.row[0][k] + b[1] * corners.row[1][k] + b[2] * corners.row[2][k];
    }
  });
}

template <class T>
void interpolate_bwd(const InterpolateArgs<T>& a, int threads) {
  if (a.v_barycentrics) v_barycentrics(a, threads);
  if (!a.v_attributes) return;
  const int64_t mesh_size = a.n_vertices * a.n_channels;
  TriangleSums sums(a.n_faces, 3 * a.n_channels, threads);
  std::vector<double> v(mesh_size, 0.0);
  for (int64_t c = 0; c < a.n_cameras; ++c) {
    v_attributes(a, c, sums, v);
    if (a.n_meshes == 1) continue;
    std::copy(v.begin(), v.end(), a.v_attributes + c * mesh_size);
    std::fill(v.begin(), v.end(), 0.0);
  }
  if (a.n_meshes == 1) std::copy(v.begin(), v.end(), a.v_attributes);
}

template void interpolate_fwd(const InterpolateArgs<float>&, int);
template void interpolate_fwd(const InterpolateArgs<double>&, int);
template void interpolate_bwd(const InterpolateArgs<float>&, int);
template void interpolate_bwd(const InterpolateArgs<double>&, int);

}  // namespace gaf::cpu
