#include <algorithm>
#include <numeric>
#include <vector>

#include "isa.h"
#include "parallel.h"
#include "rasterization.h"

namespace gaf::cpu {
namespace {

constexpr int64_t kGroupsAtOnce = 32;  // of sixteen Gaussians: some 20 us forward

}  // namespace

template <class T>
void rasterization_project_fwd(const RasterizationProjectArgs<T>& a, int threads) {
  const int64_t groups = groups_of(a.n_gaussians), chunks = (groups + kGroupsAtOnce - 1) / kGroupsAtOnce;
  std::vector<int64_t> nonfinite(chunks * a.n_cameras, 0);
  parallel_for(chunks * a.n_cameras, 1, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % chunks * kGroupsAtOnce;
      nonfinite[i] = GAF_DISPATCH_NUMBER(T, project_groups<T>)(a, i / chunks, first, std::min(first + kGroupsAtOnce, groups));
    }
  });
  *a.n_nonfinite = std::accumulate(nonfinite.begin(), nonfinite.end(), int64_t(0));
}

// The camera's gradient sums over chunks in their order, whichever thread had them.
template <class T>
void rasterization_project_bwd(const RasterizationProjectArgs<T>& a, int threads) {
  const int64_t groups = groups_of(a.n_gaussians), chunks = (groups + kGroupsAtOnce - 1) / kGroupsAtOnce, n_view = 16 * a.n_cameras;
  std::vector<T> v_viewmats(a.v_viewmats ? chunks * n_view : 0);
  parallel_for(chunks, 1, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      T* v = a.v_viewmats ? v_viewmats.data() + i * n_view : nullptr;
      GAF_DISPATCH_NUMBER(T, project_groups_vjp<T>)(a, i * kGroupsAtOnce, std::min((i + 1) * kGroupsAtOnce, groups), v);
    }
  });
  if (!a.v_viewmats) return;
  for (int64_t j = 0; j < n_view; ++j) {
    double sum = 0;
    for (int64_t i = 0; i < chunks; ++i) sum += v_viewmats[i * n_view + j];
    a.v_viewmats[j] = T(sum);
  }
}

template void rasterization_project_fwd(const RasterizationProjectArgs<float>&, int);
template void rasterization_project_fwd(const RasterizationProjectArgs<double>&, int);
template void rasterization_project_bwd(const RasterizationProjectArgs<float>&, int);
template void rasterization_project_bwd(const RasterizationProjectArgs<double>&, int);

}  // namespace gaf::cpu
