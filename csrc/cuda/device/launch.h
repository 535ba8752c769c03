// Launching kernels. The same sources are compiled by nvcc for a GPU and by a C++ compiler for the emulator of tests/simt, which has no <<<>>>.
#pragma once
#if defined(GAF_SIMT)
#include "simt.h"
#else
#include <cuda_runtime.h>
#endif

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>

#include "ops/stream.h"

namespace gaf::cuda {

constexpr size_t kSharedUnasked = 48 << 10;  // bytes of shared memory that a block has without asking; every card from sm_80 on has 99 KiB
constexpr int kThreads = 256;  // of a block that has no reason for another number

inline dim3 blocks_for(int64_t n, int threads = kThreads) { return dim3(unsigned((n + threads - 1) / threads)); }

#if !defined(GAF_SIMT)

inline void check(const char* op, cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // not sticky: the next op starts clean
  throw std::runtime_error(std::string(op) + ": CUDA says \"" + cudaGetErrorString(error) + "\" (" + cudaGetErrorName(error) + ")");
}

// name: of the op, for errors. smem: bytes of dynamic shared memory. Arguments are converted to the kernel's parameters.
// An empty grid launches nothing.
template <class... Params, class... Args>
void launch(const char* name, void (*kernel)(Params...), dim3 grid, dim3 block, size_t smem, Stream stream, Args&&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  std::tuple<std::remove_cv_t<Params>...> values(std::forward<Args>(args)...);
  std::apply(
      [&](auto&... value) {
        std::array<void*, sizeof...(Params)> pointers{const_cast<void*>(static_cast<const void*>(&value))...};
        if (smem > kSharedUnasked) {
          check(name, cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(smem)));
        }
        check(name, cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers.data(), smem,
                                     static_cast<cudaStream_t>(stream.handle)));
      },
      values);
}

// Sets n bytes to value, on the stream.
inline void fill_bytes(const char* name, void* out, int value, size_t n, Stream stream) {
  if (n > 0) check(name, cudaMemsetAsync(out, value, n, static_cast<cudaStream_t>(stream.handle)));
}

#define GAF_SHARED(T, name, ...) __shared__ T name __VA_ARGS__
#define GAF_SHARED_DYNAMIC(T, name)                               \
  extern __shared__ __align__(16) unsigned char gaf_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(gaf_dynamic_shared)

#else

template <class... Params, class... Args>
void launch(const char* name, void (*kernel)(Params...), dim3 grid, dim3 block, size_t smem, Stream, Args&&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  std::tuple<std::remove_cv_t<Params>...> values(std::forward<Args>(args)...);
  simt::launch(name, reinterpret_cast<const void*>(kernel), grid, block, smem, [&] { std::apply(kernel, values); });
}

inline void fill_bytes(const char* name, void* out, int value, size_t n, Stream) {
  simt::host_task(name, [&] { simt::fill(out, value, n); });
}

#define GAF_SHARED(T, name, ...)       \
  typedef T name##_shared __VA_ARGS__; \
  static char name##_site;             \
  name##_shared& name = *static_cast<name##_shared*>(::simt::shared(&name##_site, sizeof(name##_shared), alignof(name##_shared), #name))
#define GAF_SHARED_DYNAMIC(T, name) T* const name = static_cast<T*>(::simt::dynamic_shared())

#endif

// Number of the thread in a one-dimensional grid.
__device__ __forceinline__ int64_t thread_index() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

}  // namespace gaf::cuda
