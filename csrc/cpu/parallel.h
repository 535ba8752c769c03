// Loops over threads. Which thread runs which chunk is left open, so a body must write the same bits whoever runs it.
#pragma once
#include <cstdint>
#include <type_traits>

namespace gaf::cpu {

// A chunk [begin, end) of a loop; worker is in [0, threads) and unique among the chunks that run at the same time.
using ChunkBody = void (*)(void* context, int64_t begin, int64_t end, int worker);

// Runs body over [0, n) in chunks of `grain` on up to `threads` threads, the caller among them, and returns when all are done. Denormals are
// flushed to zero inside (they cost two orders of magnitude) and the caller's setting is restored. The first exception is passed on.
// Calls from inside a body, and from a second thread while the pool is busy, run on the calling thread alone.
void run_chunks(ChunkBody body, void* context, int64_t n, int64_t grain, int threads);

// f(begin, end, worker)
template <class F>
void parallel_for(int64_t n, int64_t grain, int threads, F&& f) {
  using Fn = std::remove_reference_t<F>;
  run_chunks([](void* c, int64_t begin, int64_t end, int worker) { (*static_cast<Fn*>(c))(begin, end, worker); },
             const_cast<void*>(static_cast<const void*>(&f)), n, grain, threads);
}

}  // namespace gaf::cpu
