// Stable radix sort of (key, value) by several threads. The result is the only stable order, so it does not depend on the threads.
#pragma once
#include <algorithm>
#include <bit>
#include <vector>

#include "parallel.h"
#include "scratch.h"

namespace gaf::cpu {

template <class K>
struct Keyed {
  K key;
  uint32_t value;
};

// Sorts `items` [n] by key; `spare` [n] is overwritten. Returns which of the two holds the result. Keys lie in [low, high].
template <class K>
Keyed<K>* radix_sort(Keyed<K>* items, Keyed<K>* spare, int64_t n, K low, K high, int threads) {
  constexpr int kBits = 11, kBuckets = 1 << kBits;
  constexpr int64_t kMinChunk = 8192;
  const int64_t chunks = std::clamp<int64_t>(n / kMinChunk, 1, threads), size = (n + chunks - 1) / chunks;
  std::vector<int64_t> count(chunks * kBuckets);
  for (int shift = 0; shift < int(std::bit_width(K(high - low))); shift += kBits) {
    const auto bucket = [&](K key) { return int(((key - low) >> shift) & (kBuckets - 1)); };
    parallel_for(chunks, 1, threads, [&](int64_t c, int64_t, int) {
      int64_t* mine = count.data() + c * kBuckets;
      std::fill(mine, mine + kBuckets, 0);
      for (int64_t i = c * size; i < std::min(n, (c + 1) * size); ++i) ++mine[bucket(items[i].key)];
    });
    int64_t sum = 0;
    for (int b = 0; b < kBuckets; ++b) {
      for (int64_t c = 0; c < chunks; ++c) sum += std::exchange(count[c * kBuckets + b], sum);
    }
    parallel_for(chunks, 1, threads, [&](int64_t c, int64_t, int) {
      int64_t* mine = count.data() + c * kBuckets;
      for (int64_t i = c * size; i < std::min(n, (c + 1) * size); ++i) spare[mine[bucket(items[i].key)]++] = items[i];
    });
    std::swap(items, spare);
  }
  return items;
}

}  // namespace gaf::cpu
