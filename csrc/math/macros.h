// Host and device from one source: GAF_HD marks every function of csrc/math.
#pragma once

#if defined(__CUDACC__)
#define GAF_HD __host__ __device__ __forceinline__
#elif defined(GAF_FLOAT64)
#define GAF_HD inline  // the vector kernels in double (cpu/isa.h): no speed is asked of them, and they are compiled for every processor
#else
// Always inlined: these functions are compiled for several instruction sets, and a shared out-of-line copy could be the wrong one.
#define GAF_HD __attribute__((always_inline)) inline
#endif
