// Adam over all tensors of an avatar in one launch: a row of blocks for each tensor. The step counters advance in a second, tiny launch, when
// every block has read them.
#include "device/launch.h"
#include "math/adam.h"
#include "ops/adam.h"
#include "ops/device.h"

namespace gaf::cuda {
namespace {

constexpr int kBlocks = 2048 / kThreads;  // on a multiprocessor

__device__ __forceinline__ bool aligned(const AdamTensor& t) {
  const auto bits = reinterpret_cast<uintptr_t>(t.value) | reinterpret_cast<uintptr_t>(t.gradient) | reinterpret_cast<uintptr_t>(t.mean) |
                    reinterpret_cast<uintptr_t>(t.square);
  return bits % sizeof(float4) == 0;
}

// blockIdx.y: the tensor. Blocks stride over its numbers, four a thread where they can be loaded as one.
__global__ void __launch_bounds__(kThreads) adam_update_kernel(AdamArgs a) {
  GAF_SHARED(AdamRates, rates, [1]);
  const AdamTensor& t = a.tensors[blockIdx.y];
  const int64_t step = int64_t(gridDim.x) * kThreads, n_fours = aligned(t) ? t.n / 4 : 0, first = int64_t(blockIdx.x) * kThreads;
  if (first >= n_fours && first >= t.n - 4 * n_fours) return;  // as many blocks as the largest tensor needs
  // Powers in double are slow: one thread computes them for the block.
  if (threadIdx.x == 0) rates[0] = adam_rates(double(*t.rate), a.beta1, a.beta2, a.eps, double(*t.step) + 1);
  __syncthreads();
  const AdamRates r = rates[0];
  for (int64_t i = thread_index(); i < n_fours; i += step) {
    float4 value = reinterpret_cast<float4*>(t.value)[i], mean = reinterpret_cast<float4*>(t.mean)[i];
    float4 square = reinterpret_cast<float4*>(t.square)[i];
    const float4 gradient = reinterpret_cast<const float4*>(t.gradient)[i];
    adam_step(r, gradient.x, value.x, mean.x, square.x);
    adam_step(r, gradient.y, value.y, mean.y, square.y);
    adam_step(r, gradient.z, value.z, mean.z, square.z);
    adam_step(r, gradient.w, value.w, mean.w, square.w);
    reinterpret_cast<float4*>(t.value)[i] = value;
    reinterpret_cast<float4*>(t.mean)[i] = mean;
    reinterpret_cast<float4*>(t.square)[i] = square;
  }
  for (int64_t i = 4 * n_fours + thread_index(); i < t.n; i += step) {
    float value = t.value[i], mean = t.mean[i], square = t.square[i];
    adam_step(r, t.gradient[i], value, mean, square);
    t.value[i] = value;
    t.mean[i] = mean;
    t.square[i] = square;
  }
}

__global__ void adam_count_kernel(AdamArgs a) {
  if (int(threadIdx.x) < a.n_tensors) *a.tensors[threadIdx.x].step += 1;
}

}  // namespace

void adam(const AdamArgs& a, Stream stream) {
  int64_t most = 0;
  for (int i = 0; i < a.n_tensors; ++i) most = a.tensors[i].n > most ? a.tensors[i].n : most;
  // Four numbers a thread, and no more blocks than the card runs at once, so that their powers are worth their time.
  const int64_t blocks = (most + 4 * kThreads - 1) / (4 * kThreads), at_once = int64_t(kBlocks) * multiprocessors(stream.device);
  launch("adam", adam_update_kernel, dim3(unsigned(blocks < at_once ? blocks : at_once), unsigned(a.n_tensors)), kThreads, 0, stream, a);
  launch("adam", adam_count_kernel, 1, 32, 0, stream, a);
}

}  // namespace gaf::cuda
