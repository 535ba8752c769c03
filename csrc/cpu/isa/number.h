// The number type that a source of this folder is compiled for: float once for each instruction set, double once for all processors.
#pragma once

namespace gaf::cpu::GAF_ISA {

#if defined(GAF_FLOAT64)
using Number = double;
#else
using Number = float;
#endif

}  // namespace gaf::cpu::GAF_ISA
