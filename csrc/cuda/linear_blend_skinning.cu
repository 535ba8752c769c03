// Forward, one kernel: a block of vertices makes the joints' transforms for itself (five joints are less work than a launch), then a thread is
// a vertex. Backward, two: `vertices` sums each joint's gradient over a block's vertices, a thread a number; `joints`, a block a batch element,
// sums over those blocks and goes back through the tree. All sums have one order.
#include <stdexcept>
#include <string>

#include "device/launch.h"
#include "math/skinning.h"
#include "ops/linear_blend_skinning.h"

namespace gaf::cuda {
namespace {

using SkinningArgs = LinearBlendSkinningArgs<float>;
using Transform = RigidTransform<float>;

constexpr int kSkinThreads = 128;
constexpr int kNumbers = 12;       // of a transform
constexpr int64_t kMostJoints = 512;  // their transforms lie in 24 KiB of shared memory
static_assert(sizeof(Transform) == kNumbers * sizeof(float));

__global__ void __launch_bounds__(kSkinThreads) skin_fwd_kernel(SkinningArgs a) {
  GAF_SHARED_DYNAMIC(Transform, transforms);  // [J]
  const int64_t b = blockIdx.y, v = thread_index(), at = 3 * b * a.n_joints;
  for (int64_t j = threadIdx.x; j < a.n_joints; j += kSkinThreads) transforms[j].rotation = rotation_of(load3(a.axis_angles + at, j));
  __syncthreads();
  if (threadIdx.x == 0) compose_transforms(a.n_joints, a.parents, a.joints + at, transforms);
  __syncthreads();
  if (blockIdx.x == 0) {
    const float* numbers = reinterpret_cast<const float*>(transforms);
    for (int64_t i = threadIdx.x; i < kNumbers * a.n_joints; i += kSkinThreads) a.transforms[kNumbers * b * a.n_joints + i] = numbers[i];
  }
  if (v >= a.n_vertices) return;
  const Transform t = blended_transform(a.n_joints, a.weights + v * a.n_joints, transforms);
  const int64_t o = b * a.n_vertices + v;
  store3(a.posed, o, t.rotation * load3(a.vertices, o) + t.translation + load3(a.translations, b));
}

// Numbers of a block's sums: of each joint, then of the translation.
__host__ __device__ __forceinline__ int64_t sums_of(const SkinningArgs& a) { return kNumbers * a.n_joints + 3; }

// parts: [B, blocks, sums_of]
__global__ void __launch_bounds__(kSkinThreads) skin_vertices_kernel(SkinningArgs a, float* parts) {
  GAF_SHARED(float, products, [kNumbers][kSkinThreads + 1]);  // gradient of each vertex's own transform
  const int64_t b = blockIdx.y, v = thread_index(), o = b * a.n_vertices + v;
  Transform product{};
  if (v < a.n_vertices) {
    const Transform* transforms = reinterpret_cast<const Transform*>(a.transforms) + b * a.n_joints;
    const Vec3<float> g = load3(a.v_posed, o);
    store3(a.v_vertices, o, transpose_mul(blended_transform(a.n_joints, a.weights + v * a.n_joints, transforms).rotation, g));
    matvec_vjp_mat(load3(a.vertices, o), g, product.rotation);
    product.translation = g;
  }
  const float* numbers = reinterpret_cast<const float*>(&product);
#pragma unroll
  for (int i = 0; i < kNumbers; ++i) products[i][threadIdx.x] = numbers[i];
  __syncthreads();
  const int64_t first = int64_t(blockIdx.x) * kSkinThreads, n_sums = sums_of(a);
  const int n = int(a.n_vertices - first < kSkinThreads ? a.n_vertices - first : kSkinThreads);
  for (int64_t i = threadIdx.x; i < n_sums; i += kSkinThreads) {
    const bool of_joint = i < kNumbers * a.n_joints;
    const float* row = products[of_joint ? i % kNumbers : kNumbers - 3 + i - kNumbers * a.n_joints];
    const float* weights = a.weights + first * a.n_joints + i / kNumbers;
    float sum = 0;
    for (int k = 0; k < n; ++k) sum += (of_joint ? weights[k * a.n_joints] : 1.f) * row[k];
    parts[(b * gridDim.x + blockIdx.x) * n_sums + i] = sum;
  }
}

__global__ void __launch_bounds__(kSkinThreads) skin_joints_kernel(SkinningArgs a, const float* parts, int64_t blocks) {
  GAF_SHARED_DYNAMIC(Transform, sums);  // [J]
  const int64_t b = blockIdx.x, at = 3 * b * a.n_joints, n_sums = sums_of(a);
  for (int64_t i = threadIdx.x; i < n_sums; i += kSkinThreads) {
    float sum = 0;
    for (int64_t k = 0; k < blocks; ++k) sum += parts[(b * blocks + k) * n_sums + i];
    if (i < kNumbers * a.n_joints) {
      reinterpret_cast<float*>(sums)[i] = sum;
    } else {
      a.v_translations[3 * b + i - kNumbers * a.n_joints] = sum;
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    const Transform* transforms = reinterpret_cast<const Transform*>(a.transforms) + b * a.n_joints;
    compose_transforms_vjp(a.n_joints, a.parents, a.joints + at, transforms, sums, a.v_joints + at);
  }
  __syncthreads();
  for (int64_t j = threadIdx.x; j < a.n_joints; j += kSkinThreads) {
    store3(a.v_axis_angles + at, j, rotation_of_vjp(load3(a.axis_angles + at, j), sums[j].rotation));
  }
}

void check_sizes(const SkinningArgs& a) {
  if (a.n_joints <= kMostJoints && a.n_batch <= 65535) return;
  throw std::invalid_argument("linear_blend_skinning: on a GPU at most " + std::to_string(kMostJoints) + " joints and 65535 poses, got " +
                              std::to_string(a.n_joints) + " and " + std::to_string(a.n_batch));
}

}  // namespace

void linear_blend_skinning_fwd(const SkinningArgs& a, Stream stream) {
  check_sizes(a);
  const dim3 grid(a.n_vertices > 0 ? blocks_for(a.n_vertices, kSkinThreads).x : 1, unsigned(a.n_batch));  // backward reads the transforms
  launch("linear_blend_skinning_fwd", skin_fwd_kernel, grid, kSkinThreads, size_t(a.n_joints) * sizeof(Transform), stream, a);
}

void linear_blend_skinning_bwd(const SkinningArgs& a, Stream stream) {
  const char* name = "linear_blend_skinning_bwd";
  check_sizes(a);
  const dim3 grid(blocks_for(a.n_vertices, kSkinThreads).x, unsigned(a.n_batch));
  float* parts = stream.scratch<float>(a.n_batch * grid.x * sums_of(a));
  launch(name, skin_vertices_kernel, grid, kSkinThreads, 0, stream, a, parts);
  launch(name, skin_joints_kernel, unsigned(a.n_batch), kSkinThreads, size_t(a.n_joints) * sizeof(Transform), stream, a, parts, int64_t(grid.x));
}

}  // namespace gaf::cuda
