#include "ops/linear_blend_skinning.h"

#include <vector>

#include "math/skinning.h"
#include "parallel.h"

namespace gaf::cpu {
namespace {

constexpr int64_t kGrain = 1024;  // vertices a chunk: their sums have one order at any number of threads

template <class T>
const RigidTransform<T>* transforms_of(const LinearBlendSkinningArgs<T>& a, int64_t b) {
  return reinterpret_cast<const RigidTransform<T>*>(a.transforms) + b * a.n_joints;
}

// Gradients of vertices [begin, end) of batch element b; those of the joints' transforms, and last the translation's, are added to `sums`.
template <class T>
void vertices_vjp(const LinearBlendSkinningArgs<T>& a, int64_t b, int64_t begin, int64_t end, RigidTransform<T>* sums) {
  for (int64_t v = begin; v < end; ++v) {
    const int64_t o = b * a.n_vertices + v;
    const T* weights = a.weights + v * a.n_joints;
    const Vec3<T> g = load3(a.v_posed, o), x = load3(a.vertices, o);
    store3(a.v_vertices, o, transpose_mul(blended_transform(a.n_joints, weights, transforms_of(a, b)).rotation, g));
    for (int64_t j = 0; j < a.n_joints; ++j) {
      matvec_vjp_mat(x, g * weights[j], sums[j].rotation);
      sums[j].translation += g * weights[j];
    }
    sums[a.n_joints].translation += g;
  }
}

}  // namespace

template <class T>
void linear_blend_skinning_fwd(const LinearBlendSkinningArgs<T>& a, int threads) {
  for (int64_t b = 0; b < a.n_batch; ++b) {
    RigidTransform<T>* out = reinterpret_cast<RigidTransform<T>*>(a.transforms) + b * a.n_joints;
    for (int64_t j = 0; j < a.n_joints; ++j) out[j].rotation = rotation_of(load3(a.axis_angles, b * a.n_joints + j));
    compose_transforms(a.n_joints, a.parents, a.joints + 3 * b * a.n_joints, out);
  }
  parallel_for(a.n_batch * a.n_vertices, kGrain, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t o = begin; o < end; ++o) {
      const int64_t b = o / a.n_vertices, v = o % a.n_vertices;
      const RigidTransform<T> t = blended_transform(a.n_joints, a.weights + v * a.n_joints, transforms_of(a, b));
      store3(a.posed, o, t.rotation * load3(a.vertices, o) + t.translation + load3(a.translations, b));
    }
  });
}

template <class T>
void linear_blend_skinning_bwd(const LinearBlendSkinningArgs<T>& a, int threads) {
  const int64_t chunks = (a.n_vertices + kGrain - 1) / kGrain, n_sums = a.n_joints + 1;
  std::vector<RigidTransform<T>> parts(a.n_batch * chunks * n_sums);
  parallel_for(a.n_batch * chunks, 1, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / chunks, first = i % chunks * kGrain, last = first + kGrain < a.n_vertices ? first + kGrain : a.n_vertices;
      vertices_vjp(a, b, first, last, parts.data() + i * n_sums);
    }
  });
  std::vector<RigidTransform<T>> sums(n_sums);
  for (int64_t b = 0; b < a.n_batch; ++b) {
    for (int64_t j = 0; j < n_sums; ++j) {
      sums[j] = {};
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const RigidTransform<T>& part = parts[(b * chunks + chunk) * n_sums + j];
        sums[j].rotation += part.rotation;
        sums[j].translation += part.translation;
      }
    }
    const int64_t at = 3 * b * a.n_joints;
    store3(a.v_translations, b, sums[a.n_joints].translation);
    compose_transforms_vjp(a.n_joints, a.parents, a.joints + at, transforms_of(a, b), sums.data(), a.v_joints + at);
    for (int64_t j = 0; j < a.n_joints; ++j) {
      store3(a.v_axis_angles + at, j, rotation_of_vjp(load3(a.axis_angles + at, j), sums[j].rotation));
    }
  }
}

template void linear_blend_skinning_fwd(const LinearBlendSkinningArgs<float>&, int);
template void linear_blend_skinning_fwd(const LinearBlendSkinningArgs<double>&, int);
template void linear_blend_skinning_bwd(const LinearBlendSkinningArgs<float>&, int);
template void linear_blend_skinning_bwd(const LinearBlendSkinningArgs<double>&, int);

}  // namespace gaf::cpu
