// Sixteen values at once: Simd<S, 16> is one AVX-512 register, or a tree of the registers there are. Formulas of math/ run on it unchanged.
// Include only from csrc/cpu/isa: everything lives in the namespace of the instruction set it is compiled for.
#pragma once
#include <cstdint>
#include <type_traits>

#include "isa/number.h"
#include "math/lanes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gaf::cpu::GAF_ISA {

// The overloads below would hide those for one value.
using gaf::exp2_, gaf::fma_, gaf::log2_, gaf::max_, gaf::min_, gaf::reciprocal_, gaf::select_, gaf::sqrt_;

// Chosen once: below, only these are asked, never the compiler's own macros, which say AVX2 in every unit where its flags do (-march=native).
#if defined(GAF_FLOAT64)
constexpr int kVectorBytes = 128;  // the compiler splits a vector of all lanes by itself, which is less to compile than a tree
#define GAF_AVX512 0
#define GAF_AVX2 0
#define GAF_SSE 0
#elif defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#define GAF_AVX512 1
#define GAF_AVX2 0
#define GAF_SSE 0
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int kVectorBytes = 32;
#define GAF_AVX512 0
#define GAF_AVX2 1
#define GAF_SSE 0
#else
constexpr int kVectorBytes = 16;
#define GAF_AVX512 0
#define GAF_AVX2 0
#if defined(__x86_64__)
#define GAF_SSE 1
#else
#define GAF_SSE 0
#endif
#endif

template <class S>
struct IntOf;
template <>
struct IntOf<float> { using type = int32_t; };
template <>
struct IntOf<int32_t> { using type = int32_t; };
#if defined(GAF_FLOAT64)
template <>
struct IntOf<double> { using type = int64_t; };  // elsewhere doubles have no vectors: the intrinsics below are those of floats and integers
#endif

template <class S, int N, bool kNative = (N * sizeof(S) <= kVectorBytes)>
struct Simd;
template <class S, int N, bool kNative = (N * sizeof(S) <= kVectorBytes)>
struct Mask;

// ---- one register ----

template <class S, int N>
struct Mask<S, N, true> {
  typedef typename IntOf<S>::type raw __attribute__((vector_size(N * sizeof(S))));
#if GAF_AVX512
  uint32_t m;
  GAF_HD uint32_t bits() const { return m; }
  friend GAF_HD Mask operator&(Mask a, Mask b) { return {a.m & b.m}; }
#else
  raw m;
  GAF_HD uint32_t bits() const {
#if GAF_AVX2
    return uint32_t(_mm256_movemask_ps((__m256)m));
#else
    uint32_t b = 0;
    for (int i = 0; i < N; ++i) b |= uint32_t(m[i] & 1) << i;
    return b;
#endif
  }
  friend GAF_HD Mask operator&(Mask a, Mask b) { return {a.m & b.m}; }
#endif
};

template <class S, int N>
struct Simd<S, N, true> {
  typedef S raw __attribute__((vector_size(N * sizeof(S))));
  using M = Mask<S, N, true>;
  static_assert(sizeof(typename IntOf<S>::type) == sizeof(S));
  raw v;
  Simd() = default;
  GAF_HD Simd(raw r) : v(r) {}
  template <class A>
    requires std::is_arithmetic_v<A>
  GAF_HD Simd(A a) : v(S(a) - raw{}) {}  // x - 0 is x; x + 0 would be an addition, because of -0
  GAF_HD static Simd load(const S* p) {
    Simd r;
    __builtin_memcpy(&r.v, p, sizeof(raw));
    return r;
  }
  GAF_HD void store(S* p) const { __builtin_memcpy(p, &v, sizeof(raw)); }
  friend GAF_HD Simd operator+(Simd a, Simd b) { return a.v + b.v; }
  friend GAF_HD Simd operator-(Simd a, Simd b) { return a.v - b.v; }
  friend GAF_HD Simd operator*(Simd a, Simd b) { return a.v * b.v; }
  friend GAF_HD Simd operator/(Simd a, Simd b) { return a.v / b.v; }
  friend GAF_HD Simd operator-(Simd a) { return -a.v; }
  friend GAF_HD Simd operator&(Simd a, Simd b) { return a.v & b.v; }
  friend GAF_HD Simd operator|(Simd a, Simd b) { return a.v | b.v; }
  friend GAF_HD Simd operator<<(Simd a, Simd b) { return a.v << b.v; }
  friend GAF_HD Simd operator>>(Simd a, Simd b) { return a.v >> b.v; }
#if GAF_AVX512
#define GAF_COMPARE(op, code)                                                                                      \
  friend GAF_HD M operator op(Simd a, Simd b) {                                                                    \
    if constexpr (std::is_same_v<S, float>) return {uint32_t(_mm512_cmp_ps_mask((__m512)a.v, (__m512)b.v, code))}; \
    else return {uint32_t(_mm512_cmp_epi32_mask((__m512i)a.v, (__m512i)b.v, (code) & 7))};                         \
  }
#else
#define GAF_COMPARE(op, code) \
  friend GAF_HD M operator op(Simd a, Simd b) { return {(typename M::raw)(a.v op b.v)}; }
#endif
  GAF_COMPARE(<, 1)    // the low three bits of the codes mean the same for floats and integers, where there are no NaNs
  GAF_COMPARE(<=, 2)
  GAF_COMPARE(>=, 13)
  GAF_COMPARE(>, 14)
  GAF_COMPARE(==, 0)
#undef GAF_COMPARE
};

template <class S, int N>
GAF_HD Simd<S, N, true> select_(Mask<S, N, true> m, Simd<S, N, true> a, Simd<S, N, true> b) {
#if GAF_AVX512
  if constexpr (std::is_same_v<S, float>) return (typename Simd<S, N>::raw)_mm512_mask_blend_ps(__mmask16(m.m), (__m512)b.v, (__m512)a.v);
  else return (typename Simd<S, N>::raw)_mm512_mask_blend_epi32(__mmask16(m.m), (__m512i)b.v, (__m512i)a.v);
#else
  return m.m ? a.v : b.v;
#endif
}

template <class S, int N>
GAF_HD Simd<S, N, true> min_(Simd<S, N, true> a, Simd<S, N, true> b) {
  using R [[maybe_unused]] = typename Simd<S, N, true>::raw;
#if GAF_AVX512
  if constexpr (std::is_same_v<S, float>) return (R)_mm512_min_ps((__m512)a.v, (__m512)b.v);
#elif GAF_AVX2
  if constexpr (std::is_same_v<S, float>) return (R)_mm256_min_ps((__m256)a.v, (__m256)b.v);
#elif GAF_SSE
  if constexpr (std::is_same_v<S, float>) return (R)_mm_min_ps((__m128)a.v, (__m128)b.v);
#endif
  return select_(a < b, a, b);
}

template <class S, int N>
GAF_HD Simd<S, N, true> max_(Simd<S, N, true> a, Simd<S, N, true> b) {
  using R [[maybe_unused]] = typename Simd<S, N, true>::raw;
#if GAF_AVX512
  if constexpr (std::is_same_v<S, float>) return (R)_mm512_max_ps((__m512)a.v, (__m512)b.v);
#elif GAF_AVX2
  if constexpr (std::is_same_v<S, float>) return (R)_mm256_max_ps((__m256)a.v, (__m256)b.v);
#elif GAF_SSE
  if constexpr (std::is_same_v<S, float>) return (R)_mm_max_ps((__m128)a.v, (__m128)b.v);
#endif
  return select_(a > b, a, b);
}

template <class S, int N>
GAF_HD Simd<S, N, true> sqrt_(Simd<S, N, true> a) {
  using R [[maybe_unused]] = typename Simd<S, N, true>::raw;
#if GAF_AVX512
  return (R)_mm512_sqrt_ps((__m512)a.v);
#elif GAF_AVX2
  return (R)_mm256_sqrt_ps((__m256)a.v);
#elif GAF_SSE
  return (R)_mm_sqrt_ps((__m128)a.v);
#else
  for (int i = 0; i < N; ++i) a.v[i] = std::sqrt(a.v[i]);
  return a;
#endif
}

template <class S, int N>
GAF_HD Simd<S, N, true> fma_(Simd<S, N, true> a, Simd<S, N, true> b, Simd<S, N, true> c) {
  using R [[maybe_unused]] = typename Simd<S, N, true>::raw;
#if GAF_AVX512
  return (R)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)c.v);
#elif GAF_AVX2
  return (R)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)c.v);
#else
  return a.v * b.v + c.v;
#endif
}

template <class S, int N>
GAF_HD Simd<S, N, true> reciprocal_(Simd<S, N, true> a) {
#if GAF_AVX512  // one Newton step on a 14-bit estimate: 3 ulp, and a third of the time of a division
  const Simd<S, N, true> r = (typename Simd<S, N, true>::raw)_mm512_rcp14_ps((__m512)a.v);
  return r * fma_(-a, r, Simd<S, N, true>(2));
#else
  return Simd<S, N, true>(1) / a;
#endif
}

// 2^a for a in [-8, 0], which is all that blending needs: (p(a))^8 with p a relative minimax polynomial of 2^(a/8). Relative error 2e-6.
template <int N>
GAF_HD Simd<float, N, true> exp2_(Simd<float, N, true> a) {
  using V = Simd<float, N, true>;
  V p = fma_(V(2.864817474701105e-08f), a, V(2.24338461165918e-06f));
  p = fma_(p, a, V(0.00010796965308709708f));
  p = fma_(p, a, V(0.0037526989154529123f));
  p = fma_(p, a, V(0.08664279929137392f));
  p = fma_(p, a, V(0.9999999349474201f));
  p = p * p;
  p = p * p;
  return p * p;
}
template <int N>
GAF_HD Simd<double, N, true> exp2_(Simd<double, N, true> a) {
  for (int i = 0; i < N; ++i) a.v[i] = std::exp2(a.v[i]);
  return a;
}

// log2 of positive normal numbers; relative error 3e-7 (atanh series of the mantissa, taken in [sqrt(1/2), sqrt(2))).
template <int N>
GAF_HD Simd<float, N, true> log2_(Simd<float, N, true> a) {
  using V = Simd<float, N, true>;
  typedef int32_t ints __attribute__((vector_size(N * 4)));
  const ints bits = (ints)a.v, e = (bits - 0x3f3504f3) >> 23;
  const V m = (typename V::raw)(bits - (e << 23)), s = (m - 1) / (m + 1), s2 = s * s;
  V p = fma_(s2, V(0.3205989f), V(0.4121986f));
  p = fma_(p, s2, V(0.5770780f));
  p = fma_(p, s2, V(0.9617967f));
  p = fma_(p, s2, V(2.8853901f));
  return fma_(s, p, V(__builtin_convertvector(e, typename V::raw)));
}
template <int N>
GAF_HD Simd<double, N, true> log2_(Simd<double, N, true> a) {
  for (int i = 0; i < N; ++i) a.v[i] = std::log2(a.v[i]);
  return a;
}

template <int N>
GAF_HD Simd<int32_t, N, true> to_int(Simd<float, N, true> a) { return __builtin_convertvector(a.v, typename Simd<int32_t, N, true>::raw); }
template <int N>
GAF_HD Simd<float, N, true> to_float(Simd<int32_t, N, true> a) { return __builtin_convertvector(a.v, typename Simd<float, N, true>::raw); }
template <int N>
GAF_HD Mask<int32_t, N, true> as_int_mask(Mask<float, N, true> m) { return {m.m}; }

// ---- a tree of registers ----

template <class S, int N>
struct Mask<S, N, false> {
  using H = Mask<S, N / 2>;
  H lo, hi;
  GAF_HD uint32_t bits() const { return lo.bits() | hi.bits() << (N / 2); }
  friend GAF_HD Mask operator&(Mask a, Mask b) { return {a.lo & b.lo, a.hi & b.hi}; }
};

template <class S, int N>
struct Simd<S, N, false> {
  using H = Simd<S, N / 2>;
  using M = Mask<S, N, false>;
  H lo, hi;
  Simd() = default;
  GAF_HD Simd(H l, H h) : lo(l), hi(h) {}
  template <class A>
    requires std::is_arithmetic_v<A>
  GAF_HD Simd(A a) : lo(a), hi(a) {}
  GAF_HD static Simd load(const S* p) { return {H::load(p), H::load(p + N / 2)}; }
  GAF_HD void store(S* p) const {
    lo.store(p);
    hi.store(p + N / 2);
  }
#define GAF_HALVES(op) \
  friend GAF_HD Simd operator op(Simd a, Simd b) { return {a.lo op b.lo, a.hi op b.hi}; }
  GAF_HALVES(+)
  GAF_HALVES(-)
  GAF_HALVES(*)
  GAF_HALVES(/)
  GAF_HALVES(&)
  GAF_HALVES(|)
  GAF_HALVES(<<)
  GAF_HALVES(>>)
#undef GAF_HALVES
#define GAF_HALVES(op) \
  friend GAF_HD M operator op(Simd a, Simd b) { return {a.lo op b.lo, a.hi op b.hi}; }
  GAF_HALVES(<)
  GAF_HALVES(<=)
  GAF_HALVES(>)
  GAF_HALVES(>=)
  GAF_HALVES(==)
#undef GAF_HALVES
  friend GAF_HD Simd operator-(Simd a) { return {-a.lo, -a.hi}; }
};

template <class S, int N>
GAF_HD Simd<S, N, false> select_(Mask<S, N, false> m, Simd<S, N, false> a, Simd<S, N, false> b) {
  return {select_(m.lo, a.lo, b.lo), select_(m.hi, a.hi, b.hi)};
}
#define GAF_HALVES(name)                                   \
  template <class S, int N>                                \
  GAF_HD Simd<S, N, false> name(Simd<S, N, false> a) { return {name(a.lo), name(a.hi)}; }
GAF_HALVES(sqrt_)
GAF_HALVES(reciprocal_)
GAF_HALVES(exp2_)
GAF_HALVES(log2_)
#undef GAF_HALVES
template <class S, int N>
GAF_HD Simd<S, N, false> min_(Simd<S, N, false> a, Simd<S, N, false> b) { return {min_(a.lo, b.lo), min_(a.hi, b.hi)}; }
template <class S, int N>
GAF_HD Simd<S, N, false> max_(Simd<S, N, false> a, Simd<S, N, false> b) { return {max_(a.lo, b.lo), max_(a.hi, b.hi)}; }
template <class S, int N>
GAF_HD Simd<S, N, false> fma_(Simd<S, N, false> a, Simd<S, N, false> b, Simd<S, N, false> c) {
  return {fma_(a.lo, b.lo, c.lo), fma_(a.hi, b.hi, c.hi)};
}
template <int N>
GAF_HD Simd<int32_t, N, false> to_int(Simd<float, N, false> a) { return {to_int(a.lo), to_int(a.hi)}; }
template <int N>
GAF_HD Simd<float, N, false> to_float(Simd<int32_t, N, false> a) { return {to_float(a.lo), to_float(a.hi)}; }
template <int N>
GAF_HD Mask<int32_t, N, false> as_int_mask(Mask<float, N, false> m) { return {as_int_mask(m.lo), as_int_mask(m.hi)}; }

// ---- sixteen lanes ----

constexpr int kLanes = 16;
template <class S>
using Lanes = Simd<S, kLanes>;
using Ints = Lanes<int32_t>;

template <class S>
GAF_HD Lanes<S> lane_numbers() {
  S n[kLanes];
  for (int i = 0; i < kLanes; ++i) n[i] = S(i);
  return Lanes<S>::load(n);
}

GAF_HD Ints floor_int(Lanes<float> a) {
  const Ints t = to_int(a);
  return t - select_(as_int_mask(to_float(t) > a), Ints(1), Ints(0));
}

}  // namespace gaf::cpu::GAF_ISA
