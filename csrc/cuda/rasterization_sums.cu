// Sums of pairs to gradients of splats, and the backgrounds' gradients. All sums have one order.
#include "rasterization_sums.h"

#include "device/reduce.h"
#include "math/blend.h"

namespace gaf::cuda {
namespace {

constexpr int kQuad = 4;                       // threads a splat: three of them hold four fields each
constexpr int kRows = kThreads / kQuad;        // splats a block
constexpr int kRowStride = kPairFields + 1;
constexpr uint32_t kFew = 64;                  // a splat of more pairs is summed by the whole warp
constexpr int kPixelsAtOnce = 4096;            // of a block that sums a background's gradient

__device__ __forceinline__ void add(float4& a, const float4& b) {
  a.x += b.x;
  a.y += b.y;
  a.z += b.z;
  a.w += b.w;
}

// Fields [4 q, 4 q + 4) of slots begin, begin + step, ...
__device__ __forceinline__ float4 sum_slots(const PairSums& sums, uint32_t begin, uint32_t end, uint32_t step, int q) {
  const float4* lines = reinterpret_cast<const float4*>(sums.pairs);
  float4 sum = make_float4(0, 0, 0, 0);
  for (uint32_t slot = begin; slot < end; slot += step) {
    if (sums.used[slot]) add(sum, lines[int64_t(slot) * (kPairFields / 4) + q]);
  }
  return sum;
}

__device__ __forceinline__ float4 shuffle(const float4& a, int distance) {
  return make_float4(__shfl_xor_sync(kFullMask, a.x, distance), __shfl_xor_sync(kFullMask, a.y, distance),
                     __shfl_xor_sync(kFullMask, a.z, distance), __shfl_xor_sync(kFullMask, a.w, distance));
}

// This thread's four fields of its splat. All 32 lanes must call.
__device__ __forceinline__ float4 sum_splat(const BlendPass& p, const PairSums& sums, int64_t row, int64_t n_rows, int q) {
  const bool holds = q < kPairFields / 4 && row < n_rows;
  if (sums.atomic || too_many(p.pairs)) {
    return holds ? reinterpret_cast<const float4*>(sums.splats)[row * (kPairFields / 4) + q] : make_float4(0, 0, 0, 0);
  }
  const uint32_t begin = row < n_rows ? p.pairs.first_slot[row] : 0, end = row < n_rows ? p.pairs.end_slot[row] : 0;
  const bool many = end - begin > kFew;
  float4 sum = make_float4(0, 0, 0, 0);
  if (holds && !many) sum = sum_slots(sums, begin, end, 1, q);
  const int group = lane_index() / kQuad;
  for (unsigned todo = __ballot_sync(kFullMask, many && q == 0); todo; todo &= todo - 1) {
    const int lane = __ffs(int(todo)) - 1;
    const uint32_t b = __shfl_sync(kFullMask, begin, lane), e = __shfl_sync(kFullMask, end, lane);
    float4 part = q < kPairFields / 4 ? sum_slots(sums, b + group, e, kWarp / kQuad, q) : make_float4(0, 0, 0, 0);
    for (int distance = kQuad; distance < kWarp; distance *= 2) add(part, shuffle(part, distance));
    if (group == lane / kQuad) sum = part;
  }
  return sum;
}

// m: a splat's twelve sums. Passes after the first add to the gradient of the shape.
__device__ __forceinline__ void write_gradients(const BlendPass& p, int64_t row, const float* m) {
  const RasterizationBlendArgs<float>& a = p.args;
  const bool first_pass = p.first_channel == 0;
  const float* f = a.splats + 16 * row;
  const ScreenGrad<float> s = moments_vjp(Whitening<float>{f[2], f[3], f[4]}, Moments<float>{m[0], m[1], m[2], m[3], m[4], m[5]});
  float fields[kGradColor + kSplatChannels] = {s.xx, s.xy, s.yy, m[0], 0, 0, 0, 0};
  if (!a.features) {
#pragma unroll
    for (int c = 0; c < kSplatChannels; ++c) fields[kGradColor + c] = c < p.n_channels ? m[kMoments + c] : 0.f;
  }
  float* out = a.v_splats + row / kSplatGroup * 16 * kSplatGroup + row % kSplatGroup;
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const float value = i < kGradColor + kSplatChannels ? fields[i < kGradColor + kSplatChannels ? i : 0] : 0.f;
    out[i * kSplatGroup] = first_pass ? value : out[i * kSplatGroup] + value;
  }
  const int64_t camera = row / p.grid.rows_per_camera, gaussian = row % p.grid.rows_per_camera;
  if (gaussian >= a.n_gaussians) return;
  const int64_t i = camera * a.n_gaussians + gaussian;
  a.v_means2d[2 * i] = first_pass ? s.x : a.v_means2d[2 * i] + s.x;
  a.v_means2d[2 * i + 1] = first_pass ? s.y : a.v_means2d[2 * i + 1] + s.y;
  if (a.v_means2d_abs) {
    a.v_means2d_abs[2 * i] = m[kAbsField] * float(2 * kLn2);
    a.v_means2d_abs[2 * i + 1] = m[kAbsField + 1] * float(2 * kLn2);
  }
  if (!a.v_features) return;
  for (int c = 0; c < p.n_channels; ++c) a.v_features[i * a.n_channels + p.first_channel + c] = m[kMoments + c];
}

__global__ void __launch_bounds__(kThreads) sum_pairs(BlendPass p, PairSums sums) {
  GAF_SHARED(float, fields, [kRows * kRowStride]);
  const int64_t n_rows = p.args.n_cameras * p.grid.rows_per_camera, first = int64_t(blockIdx.x) * kRows;
  const int i = int(threadIdx.x) / kQuad, q = int(threadIdx.x) % kQuad;
  const float4 sum = sum_splat(p, sums, first + i, n_rows, q);
  if (q < kPairFields / 4) {
    float* out = fields + i * kRowStride + 4 * q;
    out[0] = sum.x;
    out[1] = sum.y;
    out[2] = sum.z;
    out[3] = sum.w;
  }
  __syncthreads();
  if (threadIdx.x < kRows && first + threadIdx.x < n_rows) write_gradients(p, first + threadIdx.x, fields + threadIdx.x * kRowStride);
}

// Sums that atomics add to start at zero, and no pair is used yet.
__global__ void __launch_bounds__(kThreads) clear_sums(BlendPass p, PairSums sums) {
  const int64_t n_rows = p.args.n_cameras * p.grid.rows_per_camera, step = int64_t(gridDim.x) * blockDim.x;
  if (sums.atomic || too_many(p.pairs)) {
    for (int64_t i = thread_index(); i < n_rows * kPairFields; i += step) sums.splats[i] = 0;
  } else {
    const int64_t n = (p.pairs.counts[1] + 3) / 4;
    for (int64_t i = thread_index(); i < n; i += step) reinterpret_cast<uint32_t*>(sums.used)[i] = 0;
  }
}

// partial [C, chunks, 4]: sums of (1 - alpha) v_render over 4096 pixels.
__global__ void __launch_bounds__(kThreads) background_parts(BlendPass p, int64_t chunks, float* partial) {
  GAF_SHARED(float, shared, [kSplatChannels][32]);
  const RasterizationBlendArgs<float>& a = p.args;
  const int64_t camera = blockIdx.x / chunks, chunk = blockIdx.x % chunks, n_pixels = a.width * a.height;
  float sum[kSplatChannels] = {};
  for (int i = int(threadIdx.x); i < kPixelsAtOnce; i += kThreads) {
    const int64_t at = chunk * kPixelsAtOnce + i;
    if (at >= n_pixels) break;
    const int64_t pixel = camera * n_pixels + at;
    const float left = 1 - a.alphas[pixel];
#pragma unroll
    for (int c = 0; c < kSplatChannels; ++c) {
      if (c < p.n_channels) sum[c] = fma_(left, a.v_render[pixel * a.n_channels + p.first_channel + c], sum[c]);
    }
  }
#pragma unroll
  for (int c = 0; c < kSplatChannels; ++c) {
    const float total = block_sum(sum[c], shared[c]);
    if (threadIdx.x == 0) partial[kSplatChannels * blockIdx.x + c] = total;
  }
}

__global__ void __launch_bounds__(kThreads) background_sum(BlendPass p, int64_t chunks, const float* partial) {
  const int64_t i = thread_index(), camera = i / kSplatChannels, c = i % kSplatChannels;
  if (camera >= p.args.n_cameras || c >= p.n_channels) return;
  double sum = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += double(partial[kSplatChannels * (camera * chunks + chunk) + c]);
  p.args.v_backgrounds[camera * p.args.n_channels + p.first_channel + c] = float(sum);
}

void background_vjp(const BlendPass& pass, float* partial, int64_t chunks, Stream stream) {
  const int64_t cameras = pass.args.n_cameras;
  launch(kBlendBwd, background_parts, dim3(unsigned(cameras * chunks)), dim3(kThreads), 0, stream, pass, chunks, partial);
  launch(kBlendBwd, background_sum, blocks_for(cameras * kSplatChannels), dim3(kThreads), 0, stream, pass, chunks, partial);
}

}  // namespace

void rasterization_blend_bwd(const RasterizationBlendArgs<float>& a, const RasterizationPairRoom& room, Stream stream) {
  BlendPass pass{a, tile_grid(a.width, a.height, a.n_gaussians), {}, {}, 0, 0};
  pass.pairs = pairs_in(a.kept, a, room.capacity, true);
  const int64_t n_rows = a.n_cameras * pass.grid.rows_per_camera, chunks = (a.width * a.height + kPixelsAtOnce - 1) / kPixelsAtOnce;
  // Either of the two is used, which of them is only known on the device.
  const int64_t n_lines = room.atomic || n_rows > room.capacity ? n_rows : room.capacity;
  PairSums sums{};
  sums.atomic = room.atomic;
  // Before a pass has sums, the same memory holds its pieces.
  const int64_t sum_bytes = n_lines * kPairFields * int64_t(sizeof(float)), bytes = a.n_channels > kSplatChannels ? pieces_bytes(a, room.capacity) : 0;
  uint8_t* memory = stream.scratch<uint8_t>(sum_bytes > bytes ? sum_bytes : bytes);
  sums.pairs = sums.splats = reinterpret_cast<float*>(memory);
  pass.pieces = pieces_in(memory, a, room.capacity);
  sums.used = stream.scratch<uint8_t>(room.capacity + 4);
  float* partial = a.v_backgrounds ? stream.scratch<float>(a.n_cameras * chunks * kSplatChannels) : nullptr;
  for_each_pass(pass, [&] {
    if (a.n_channels > kSplatChannels) blend_pass(pass, true, stream);
    launch(kBlendBwd, clear_sums, blocks_for(n_rows), dim3(kThreads), 0, stream, pass, sums);
    blend_vjp_pass(pass, sums, stream);
    launch(kBlendBwd, sum_pairs, dim3(unsigned((n_rows + kRows - 1) / kRows)), dim3(kThreads), 0, stream, pass, sums);
    if (a.v_backgrounds) background_vjp(pass, partial, chunks, stream);
  });
}

}  // namespace gaf::cuda
