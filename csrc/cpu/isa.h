// Which instruction set the vectorised kernels use, chosen once when the program runs.
#pragma once

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
