// CUDA on a CPU, for tests: the part of the language that csrc/cuda uses, as plain C++. Every CUDA thread is a fiber; blocks run one after the
// other. The aim is to find mistakes, so what CUDA leaves undefined is an error here, and memory starts as 0xFF bytes (NaN, -1).
// README.md of this folder says what it can find and what it cannot.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <source_location>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

#define SIMT_VECTOR2(name, T, alignment) \
  struct alignas(alignment) name { T x, y; }; \
  inline name make_##name(T x, T y) { return {x, y}; }
#define SIMT_VECTOR3(name, T) \
  struct name { T x, y, z; }; \
  inline name make_##name(T x, T y, T z) { return {x, y, z}; }
#define SIMT_VECTOR4(name, T, alignment) \
  struct alignas(alignment) name { T x, y, z, w; }; \
  inline name make_##name(T x, T y, T z, T w) { return {x, y, z, w}; }
SIMT_VECTOR2(float2, float, 8)
SIMT_VECTOR2(int2, int, 8)
SIMT_VECTOR2(uint2, unsigned, 8)
SIMT_VECTOR2(double2, double, 16)
SIMT_VECTOR3(float3, float)
SIMT_VECTOR3(int3, int)
SIMT_VECTOR3(uint3, unsigned)
SIMT_VECTOR4(float4, float, 16)
SIMT_VECTOR4(int4, int, 16)
SIMT_VECTOR4(uint4, unsigned, 16)
SIMT_VECTOR4(uchar4, unsigned char, 4)
SIMT_VECTOR4(ushort4, unsigned short, 8)
SIMT_VECTOR2(ushort2, unsigned short, 4)
#undef SIMT_VECTOR2
#undef SIMT_VECTOR3
#undef SIMT_VECTOR4

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Set by the scheduler whenever another fiber runs.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace simt {

using Where = std::source_location;

enum class Order { kFifo, kLifo, kRandom };
struct Settings {
  Order order = Order::kFifo;
  uint64_t seed = 0;
  double timeout_s = 60;  // of one launch; then the process ends with a report
};
extern Settings settings;
extern int64_t launches;  // so far
extern std::map<const void*, int64_t> launches_of;  // by kernel

// Runs `body`, which calls the kernel, for every thread of every block. Throws std::runtime_error at the first mistake, or prints it and ends the
// process where it was a wild access.
void launch(const char* name, const void* kernel, dim3 grid, dim3 block, size_t dynamic_shared_bytes, const std::function<void()>& body);
// What a library would do on the device: device memory may be touched.
void host_task(const char* name, const std::function<void()>& task);

// Device memory: ends at a guard page, reads as 0xFF, and may be touched during launches only. At least 16-byte aligned.
void* allocate(size_t n);
void release(void* p);
void write(void* device, const void* host, size_t n);
void read(void* host, const void* device, size_t n);
void fill(void* device, int value, size_t n);

void* shared(const void* site, size_t bytes, size_t alignment, const char* name);
void* dynamic_shared();

// The rest is called by the functions below.
enum class Barrier { kPlain, kOr, kAnd, kCount };
int barrier(Barrier kind, int predicate, Where where);

enum class WarpOp { kSync, kShuffle, kUp, kDown, kXor, kBallot, kMatchAny, kSum, kMin, kMax, kMinSigned, kMaxSigned };
// operand: source lane, offset or mask of a shuffle. Values are compared and moved as 64 bits.
uint64_t warp(WarpOp op, unsigned mask, uint64_t value, int operand, int width, Where where);
void fence();

template <class T>
inline T shuffle(WarpOp op, unsigned mask, T value, int operand, int width, Where where) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = warp(op, mask, bits, operand, width, where);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// Read, change, write: atomic, and like CUDA's without any order among other accesses.
template <class T, class F>
inline T atomic_update(T* p, F&& change) {
  T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(p, &old, change(old), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

}  // namespace simt

inline void __syncthreads(simt::Where w = simt::Where::current()) { simt::barrier(simt::Barrier::kPlain, 0, w); }
inline int __syncthreads_or(int p, simt::Where w = simt::Where::current()) { return simt::barrier(simt::Barrier::kOr, p, w); }
inline int __syncthreads_and(int p, simt::Where w = simt::Where::current()) { return simt::barrier(simt::Barrier::kAnd, p, w); }
inline int __syncthreads_count(int p, simt::Where w = simt::Where::current()) { return simt::barrier(simt::Barrier::kCount, p, w); }
inline void __threadfence() { simt::fence(); }
inline void __threadfence_block() { simt::fence(); }

inline void __syncwarp(unsigned mask = 0xffffffffu, simt::Where w = simt::Where::current()) {
  simt::warp(simt::WarpOp::kSync, mask, 0, 0, 32, w);
}
template <class T>
inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32, simt::Where w = simt::Where::current()) {
  return simt::shuffle(simt::WarpOp::kShuffle, mask, v, lane, width, w);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T v, unsigned offset, int width = 32, simt::Where w = simt::Where::current()) {
  return simt::shuffle(simt::WarpOp::kUp, mask, v, int(offset), width, w);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T v, unsigned offset, int width = 32, simt::Where w = simt::Where::current()) {
  return simt::shuffle(simt::WarpOp::kDown, mask, v, int(offset), width, w);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T v, int lanes, int width = 32, simt::Where w = simt::Where::current()) {
  return simt::shuffle(simt::WarpOp::kXor, mask, v, lanes, width, w);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, simt::Where w = simt::Where::current()) {
  return unsigned(simt::warp(simt::WarpOp::kBallot, mask, predicate != 0, 0, 32, w));
}
inline int __any_sync(unsigned mask, int predicate, simt::Where w = simt::Where::current()) { return __ballot_sync(mask, predicate, w) != 0; }
inline int __all_sync(unsigned mask, int predicate, simt::Where w = simt::Where::current()) { return __ballot_sync(mask, predicate, w) == mask; }
template <class T>
inline unsigned __match_any_sync(unsigned mask, T v, simt::Where w = simt::Where::current()) {
  uint64_t bits = 0;
  std::memcpy(&bits, &v, sizeof(T));
  return unsigned(simt::warp(simt::WarpOp::kMatchAny, mask, bits, 0, 32, w));
}
template <class T>
inline T __reduce_add_sync(unsigned mask, T v, simt::Where w = simt::Where::current()) {
  return T(simt::warp(simt::WarpOp::kSum, mask, uint64_t(int64_t(v)), 0, 32, w));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned v, simt::Where w = simt::Where::current()) {
  return unsigned(simt::warp(simt::WarpOp::kMin, mask, v, 0, 32, w));
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned v, simt::Where w = simt::Where::current()) {
  return unsigned(simt::warp(simt::WarpOp::kMax, mask, v, 0, 32, w));
}
inline int __reduce_min_sync(unsigned mask, int v, simt::Where w = simt::Where::current()) {
  return int(simt::warp(simt::WarpOp::kMinSigned, mask, uint64_t(int64_t(v)), 0, 32, w));
}
inline int __reduce_max_sync(unsigned mask, int v, simt::Where w = simt::Where::current()) {
  return int(simt::warp(simt::WarpOp::kMaxSigned, mask, uint64_t(int64_t(v)), 0, 32, w));
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned v, simt::Where w = simt::Where::current()) {
  unsigned result = 0;
  for (int bit = 0; bit < 32; ++bit) result |= unsigned(__any_sync(mask, int(v >> bit & 1), w)) << bit;
  return result;
}

// Atomics. Floats go through their bits.
template <class T>
inline T atomicAdd(T* p, T v) {
  if constexpr (std::is_same_v<T, float>) {
    const uint32_t old = simt::atomic_update(reinterpret_cast<uint32_t*>(p), [v](uint32_t b) { return std::bit_cast<uint32_t>(std::bit_cast<float>(b) + v); });
    return std::bit_cast<float>(old);
  } else if constexpr (std::is_same_v<T, double>) {
    const uint64_t old = simt::atomic_update(reinterpret_cast<uint64_t*>(p), [v](uint64_t b) { return std::bit_cast<uint64_t>(std::bit_cast<double>(b) + v); });
    return std::bit_cast<double>(old);
  } else {
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
  }
}
template <class T>
inline T atomicSub(T* p, T v) { return __atomic_fetch_sub(p, v, __ATOMIC_RELAXED); }
template <class T>
inline T atomicOr(T* p, T v) { return __atomic_fetch_or(p, v, __ATOMIC_RELAXED); }
template <class T>
inline T atomicAnd(T* p, T v) { return __atomic_fetch_and(p, v, __ATOMIC_RELAXED); }
template <class T>
inline T atomicMin(T* p, T v) { return simt::atomic_update(p, [v](T old) { return v < old ? v : old; }); }
template <class T>
inline T atomicMax(T* p, T v) { return simt::atomic_update(p, [v](T old) { return v > old ? v : old; }); }
template <class T>
inline T atomicExch(T* p, T v) { return __atomic_exchange_n(p, v, __ATOMIC_RELAXED); }
template <class T>
inline T atomicCAS(T* p, T expected, T v) {
  __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}

// Arithmetic intrinsics.
using std::max;
using std::min;
inline int __popc(unsigned v) { return std::popcount(v); }
inline int __popcll(unsigned long long v) { return std::popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __clz(int v) { return std::countl_zero(unsigned(v)); }
inline int __clzll(long long v) { return std::countl_zero(static_cast<unsigned long long>(v)); }
inline unsigned __brev(unsigned v) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (v >> i & 1u) << (31 - i);
  return r;
}
template <class T>
inline T __ldg(const T* p) { return *p; }
template <class T>
inline T __ldcs(const T* p) { return *p; }
template <class T>
inline void __stcs(T* p, T v) { *p = v; }
inline float __int_as_float(int v) { return std::bit_cast<float>(v); }
inline float __uint_as_float(unsigned v) { return std::bit_cast<float>(v); }
inline int __float_as_int(float v) { return std::bit_cast<int>(v); }
inline unsigned __float_as_uint(float v) { return std::bit_cast<unsigned>(v); }
inline float __expf(float v) { return std::exp(v); }
inline float __logf(float v) { return std::log(v); }
inline float __log2f(float v) { return std::log2(v); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float v) { return 1 / v; }
inline float __fsqrt_rn(float v) { return std::sqrt(v); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline float rsqrtf(float v) { return 1 / std::sqrt(v); }
inline float __saturatef(float v) { return v > 0 ? (v < 1 ? v : 1) : 0; }  // NaN gives 0, as on the device
inline int __float2int_rd(float v) { return int(std::floor(v)); }
inline int __float2int_ru(float v) { return int(std::ceil(v)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
