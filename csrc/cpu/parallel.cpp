// A pool of threads that wait for loops. Idle workers spin for a few microseconds, because an op is a sequence of short loops, then sleep.
#include "parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gaf::cpu {
namespace {

constexpr auto kSpin = std::chrono::microseconds(50);  // about what waking a sleeping thread costs

class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }  // flush-to-zero and denormals-are-zero
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" ::"r"(saved_ | (uint64_t(1) << 24)));
  }
  ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

struct Loop {
  ChunkBody body;
  void* context;
  int64_t n, grain;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;

  Loop(ChunkBody body, void* context, int64_t n, int64_t grain) : body(body), context(context), n(n), grain(grain) {}

  void work(int worker) {
    const FlushDenormals guard;
    try {
      for (;;) {
        const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
        if (begin >= n) return;
        body(context, begin, std::min(begin + grain, n), worker);
      }
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
      next.store(n, std::memory_order_relaxed);
    }
  }
};

class Pool {
 public:
  // The caller holds the busy flag.
  void run(Loop& loop, int threads) {
    grow(threads - 1);
    {
      const std::lock_guard lock(mutex_);
      loop_ = &loop;
      helpers_ = std::min(threads - 1, int(workers_.size()));
      pending_.store(helpers_, std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    loop.work(0);
    const auto end = std::chrono::steady_clock::now() + kSpin;
    while (pending_.load(std::memory_order_acquire) > 0) {
      // On a busy machine a worker may be off its core: spinning on would keep it there.
      if (std::chrono::steady_clock::now() < end) {
        relax();
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  // Where the system gives no more threads, those that exist do the work.
  void grow(int count) try {
    while (int(workers_.size()) < count) {
      const int id = int(workers_.size());
      workers_.emplace_back([this, id, seen = generation_.load()] { serve(id, seen); });
      workers_.back().detach();  // they live as long as the process; a fork leaves them behind
    }
  } catch (const std::system_error&) {
  }

  void serve(int id, uint64_t seen) {
    for (;;) {
      await(seen);
      Loop* loop = nullptr;
      {
        const std::lock_guard lock(mutex_);
        seen = generation_.load(std::memory_order_relaxed);
        if (id < helpers_) loop = loop_;
      }
      if (!loop) continue;
      loop->work(id + 1);
      pending_.fetch_sub(1, std::memory_order_release);
    }
  }

  void await(uint64_t seen) {
    const auto end = std::chrono::steady_clock::now() + kSpin;
    while (std::chrono::steady_clock::now() < end) {
      if (generation_.load(std::memory_order_acquire) != seen) return;
      relax();
    }
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
  Loop* loop_ = nullptr;
  int helpers_ = 0;
  std::atomic<int> pending_{0};
  std::atomic<uint64_t> generation_{0};
};

std::atomic<bool> busy{false};
Pool* pool = nullptr;  // guarded by `busy`; never destroyed, so that workers outlive static destruction

// Takes the pool if nobody has it.
class Turn {
 public:
  Turn() : mine_(!busy.exchange(true, std::memory_order_acquire)) {}
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn() {
    if (mine_) busy.store(false, std::memory_order_release);
  }
  explicit operator bool() const { return mine_; }

 private:
  bool mine_;
};

// A child process has none of its parent's threads: it starts over with an empty pool.
void forget_pool_after_fork() {
  pool = nullptr;
  busy.store(false);
}

}  // namespace

void run_chunks(ChunkBody body, void* context, int64_t n, int64_t grain, int threads) {
  if (n <= 0) return;
  Loop loop(body, context, n, std::max<int64_t>(grain, 1));
  const int64_t chunks = (n + loop.grain - 1) / loop.grain;
  const int wanted = int(std::min<int64_t>(chunks, std::max(threads, 1)));
  if (wanted == 1) {
    loop.work(0);
  } else if (const Turn turn; !turn) {
    loop.work(0);
  } else {
    if (!pool) {
      [[maybe_unused]] static const int registered = pthread_atfork(nullptr, nullptr, forget_pool_after_fork);
      pool = new Pool;
    }
    pool->run(loop, wanted);
  }
  if (loop.error) std::rethrow_exception(loop.error);
}

}  // namespace gaf::cpu
