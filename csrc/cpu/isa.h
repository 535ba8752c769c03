// Which instruction set the vectorised kernels use, chosen once when the program runs.
//
// Doubles are there for gradcheck: their kernels are compiled once, for every processor and with little optimisation (namespace float64), because
// sixteen doubles in registers that hold two or four took 27 s more to compile, of 98 s for all sources of the CPU.
#pragma once
#include <type_traits>

namespace gaf::cpu {

enum class Isa { baseline, avx2, avx512 };

// The best the processor has; the environment variable GAFCORE_ISA (baseline, avx2, avx512) can lower it.
Isa isa();
const char* isa_name();

}  // namespace gaf::cpu

// Calls fn of the chosen instruction set: GAF_DISPATCH(fn)(arguments). fn must be declared in each of the namespaces.
#if defined(__x86_64__)
#define GAF_DISPATCH(fn) \
  (::gaf::cpu::isa() == ::gaf::cpu::Isa::avx512 ? ::gaf::cpu::avx512::fn : ::gaf::cpu::isa() == ::gaf::cpu::Isa::avx2 ? ::gaf::cpu::avx2::fn : ::gaf::cpu::baseline::fn)
#else
#define GAF_DISPATCH(fn) (::gaf::cpu::baseline::fn)
#endif

// The same in a template over the number type T.
#define GAF_DISPATCH_NUMBER(T, fn)                                                    \
  ([] {                                                                               \
    if constexpr (std::is_same_v<T, double>) return &::gaf::cpu::float64::fn;         \
    else return GAF_DISPATCH(fn);                                                     \
  }())
