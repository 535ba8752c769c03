#include "isa.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace gaf::cpu {
namespace {

Isa detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::baseline;
}

Isa choose() {
  const Isa best = detect();
  const char* wish = std::getenv("GAFCORE_ISA");
  if (!wish) return best;
  if (std::string_view(wish) == "baseline") return Isa::baseline;
  if (std::string_view(wish) == "avx2") return std::min(best, Isa::avx2);
  return best;
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

const char* isa_name() {
  switch (isa()) {
    case Isa::avx512: return "avx512";
    case Isa::avx2: return "avx2";
    default: return "baseline";
  }
}

}  // namespace gaf::cpu
