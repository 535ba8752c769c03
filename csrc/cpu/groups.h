// The members of each group, in ascending order: lets a scatter become a gather that sums in a fixed order.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace gaf::cpu {

class Groups {
 public:
  // keys [n], each in [0, n_groups). Counting sort, O(n + n_groups).
  Groups(const int64_t* keys, int64_t n, int64_t n_groups) : begin_(n_groups + 1, 0), members_(n) {
    for (int64_t i = 0; i < n; ++i) ++begin_[keys[i] + 1];
    for (int64_t g = 0; g < n_groups; ++g) begin_[g + 1] += begin_[g];
    std::vector<int64_t> next(begin_.begin(), begin_.end() - 1);
    for (int64_t i = 0; i < n; ++i) members_[next[keys[i]]++] = i;
  }

  std::span<const int64_t> of(int64_t group) const {
    return {members_.data() + begin_[group], size_t(begin_[group + 1] - begin_[group])};
  }

 private:
  std::vector<int64_t> begin_;    // [G + 1]
  std::vector<int64_t> members_;  // [n]
};

}  // namespace gaf::cpu
