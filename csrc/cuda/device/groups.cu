#include "groups.h"

#include "prim.h"

namespace gaf::cuda {
namespace {

// Members of no group get the key behind the last one, and so sort to the end.
template <class Key>
__global__ void number_kernel(const Key* keys, uint32_t* sort_keys, uint32_t* numbers, int64_t n, uint32_t n_groups) {
  const int64_t i = thread_index();
  if (i >= n) return;
  sort_keys[i] = keys[i] < 0 ? n_groups : uint32_t(keys[i]);
  numbers[i] = uint32_t(i);
}

// begin[g] = how many sorted keys are below g.
__global__ void begin_kernel(const uint32_t* sorted, uint32_t* begin, int64_t n, int64_t n_groups) {
  const int64_t g = thread_index();
  if (g > n_groups) return;
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (sorted[middle] < uint32_t(g)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  begin[g] = uint32_t(low);
}

}  // namespace

template <class Key>
static Groups build(const char* name, const Key* keys, int64_t n, int64_t n_groups, Stream stream) {
  if (n >= (int64_t(1) << 31) || n_groups >= (int64_t(1) << 31)) {
    throw std::runtime_error(std::string(name) + ": " + std::to_string(n) + " items in " + std::to_string(n_groups) + " groups; at most 2^31 - 1");
  }
  // Four arrays from one block of memory: asking for one costs more than filling it.
  uint32_t* memory = stream.scratch<uint32_t>(4 * n + n_groups + 1);
  uint32_t *sort_keys = memory, *numbers = memory + n, *sorted = numbers + n, *members = sorted + n, *begin = members + n;
  launch(name, number_kernel<Key>, blocks_for(n), kThreads, 0, stream, keys, sort_keys, numbers, n, uint32_t(n_groups));
  if (n > 0) sort_pairs(name, {sort_keys, sorted, numbers, members, n, bits_for(n_groups + 1)}, stream);
  launch(name, begin_kernel, blocks_for(n_groups + 1), kThreads, 0, stream, sorted, begin, n, n_groups);
  return {begin, members};
}

Groups make_groups(const char* name, const int64_t* keys, int64_t n, int64_t n_groups, Stream stream) {
  return build(name, keys, n, n_groups, stream);
}
Groups make_groups(const char* name, const int32_t* keys, int64_t n, int64_t n_groups, Stream stream) {
  return build(name, keys, n, n_groups, stream);
}

}  // namespace gaf::cuda
