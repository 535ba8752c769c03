#include "scratch.h"

#include <pthread.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gaf::cpu {
namespace {

#if defined(GAF_SANITIZE)
constexpr size_t kPoolLimit = 0;  // AddressSanitizer sees a step past the end of a block only if the block ends there
#else
constexpr size_t kPoolLimit = size_t(1) << 30;
#endif
constexpr size_t kAlignment = 128;  // of sixteen doubles
constexpr size_t kHugePage = size_t(2) << 20;

struct Block {
  void* data;
  size_t capacity;
};

struct Pool {
  std::mutex mutex;
  std::vector<Block> blocks;  // oldest first
  size_t bytes = 0;
};

// Never destroyed: blocks may be returned while the interpreter shuts down. A fork waits until no thread is at the pool, because the child
// would inherit a lock that nobody opens.
Pool& pool() {
  static Pool* const p = [] {
    pthread_atfork([] { pool().mutex.lock(); }, [] { pool().mutex.unlock(); }, [] { pool().mutex.unlock(); });
    return new Pool;
  }();
  return *p;
}

// Sizes are rounded up to an eighth of a power of two, so that slightly different requests share blocks.
size_t rounded(size_t bytes) {
  if (kPoolLimit == 0) return std::max<size_t>(bytes, 1);
  size_t step = 64;
  while (step * 16 < bytes) step *= 2;
  return std::max<size_t>((bytes + step - 1) / step * step, 64);
}

void* allocate(size_t capacity) {
  const size_t alignment = capacity >= kHugePage ? kHugePage : kAlignment;
  void* data = nullptr;
  if (posix_memalign(&data, alignment, capacity) != 0) throw std::bad_alloc();
#if defined(__linux__)
  if (capacity >= kHugePage) madvise(data, capacity, MADV_HUGEPAGE);
#endif
  return data;
}

}  // namespace

Scratch::Scratch(size_t bytes) : size_(bytes) {
  const size_t wanted = rounded(bytes);
  Pool& p = pool();
  {
    const std::lock_guard lock(p.mutex);
    auto best = p.blocks.end();
    for (auto b = p.blocks.begin(); b != p.blocks.end(); ++b) {
      if (b->capacity >= wanted && b->capacity <= 2 * wanted && (best == p.blocks.end() || b->capacity <= best->capacity)) best = b;
    }
    if (best != p.blocks.end()) {
      data_ = best->data;
      capacity_ = best->capacity;
      p.bytes -= capacity_;
      p.blocks.erase(best);
      return;
    }
  }
  data_ = allocate(wanted);
  capacity_ = wanted;
}

Scratch::~Scratch() {
  if (!data_) return;
  Pool& p = pool();
  const std::lock_guard lock(p.mutex);
  p.blocks.push_back({data_, capacity_});
  p.bytes += capacity_;
  while (p.bytes > kPoolLimit) {
    p.bytes -= p.blocks.front().capacity;
    std::free(p.blocks.front().data);
    p.blocks.erase(p.blocks.begin());
  }
}

size_t scratch_pooled() {
  const std::lock_guard lock(pool().mutex);
  return pool().bytes;
}

void scratch_release() {
  Pool& p = pool();
  const std::lock_guard lock(p.mutex);
  for (const Block& b : p.blocks) std::free(b.data);
  p.blocks.clear();
  p.bytes = 0;
}

}  // namespace gaf::cpu
