// The only file that includes CUB: its templates cost more compile time than all kernels together.
#include "prim.h"

#if defined(GAF_SIMT)

#include <algorithm>
#include <numeric>
#include <vector>

namespace gaf::cuda {
namespace {

// The host twin uses none of its temporary memory, but insists on getting it.
size_t demand(const char* name, void* temp, size_t& temp_bytes, int64_t n) {
  const size_t needed = size_t(n) * 4 + 1;
  if (temp && temp_bytes < needed) throw std::logic_error(std::string(name) + ": temporary memory is too small");
  if (!temp) temp_bytes = needed;
  return needed;
}

}  // namespace

void sort_pairs(const char* name, void* temp, size_t& temp_bytes, const SortPairs& a, Stream) {
  const size_t needed = demand(name, temp, temp_bytes, a.n);
  if (!temp) return;
  if (a.bits <= 0 || a.bits > 32) throw std::logic_error(std::string(name) + ": bits must be in 1..32");
  simt::host_task(name, [&] {
    simt::fill(temp, 0x5a, needed);
    const uint32_t mask = a.bits == 32 ? ~0u : (1u << a.bits) - 1;
    std::vector<uint32_t> order(a.n);
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(), [&](uint32_t i, uint32_t j) { return (a.keys_in[i] & mask) < (a.keys_in[j] & mask); });
    for (int64_t i = 0; i < a.n; ++i) {
      a.keys_out[i] = a.keys_in[order[i]];
      a.values_out[i] = a.values_in[order[i]];
    }
  });
}

}  // namespace gaf::cuda

#else

#include <cub/device/device_radix_sort.cuh>

namespace gaf::cuda {

void sort_pairs(const char* name, void* temp, size_t& temp_bytes, const SortPairs& a, Stream stream) {
  check(name, cub::DeviceRadixSort::SortPairs(temp, temp_bytes, a.keys_in, a.keys_out, a.values_in, a.values_out, int32_t(a.n), 0, a.bits,
                                              static_cast<cudaStream_t>(stream.handle)));
}

}  // namespace gaf::cuda

#endif
