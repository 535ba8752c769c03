// The members of each group, in ascending order: lets a scatter become a gather that sums in a fixed order (csrc/cpu/groups.h on a GPU).
#pragma once
#include <cstdint>

#include "launch.h"

namespace gaf::cuda {

struct Groups {
  const uint32_t* begin;    // [G + 1]
  const uint32_t* members;  // [n]
};

// keys [n] of 64 or 32 bits, each in [0, n_groups), or negative for members of no group. Enqueued; the memory is the stream's scratch.
Groups make_groups(const char* name, const int64_t* keys, int64_t n, int64_t n_groups, Stream stream);
Groups make_groups(const char* name, const int32_t* keys, int64_t n, int64_t n_groups, Stream stream);

}  // namespace gaf::cuda
