// Runs the threads of a launch, one block after the other, in a chosen order.
#include "scheduler.h"

#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace simt {

Settings settings;
int64_t launches = 0;
std::map<const void*, int64_t> launches_of;
Thread* self = nullptr;
Block* block = nullptr;
const char* kernel_name = "";

namespace {

struct Failed {};  // unwinds a fiber to its entry

std::recursive_mutex one_launch;
std::vector<Fiber*> fibers;  // [sets, 1024] kept from block to block
uint64_t n_blocks = 0;       // so far
const std::function<void()>* kernel = nullptr;
std::mt19937_64 random_source;
char launch_begin_tag, launch_end_tag, fence_tag;
// Blocks on one set of fibers run one after the other, in one arena of shared memory. A block acquires what the one before it released; it releases
// under the other tag, since its own threads must not be ordered by it.
char set_tags[kMostFiberSets][2];
size_t set_now = 0, turn_now = 0;

template <class T>
void shuffle_order(std::vector<T>& items) {
  for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[random_source() % i]);
}

void enter(void* argument) {
  Thread* thread = static_cast<Thread*>(argument);
  acquire_tag(&launch_begin_tag);
  acquire_tag(&set_tags[set_now][turn_now]);
  try {
    (*kernel)();
  } catch (const Failed&) {
  } catch (const std::exception& e) {
    if (block->error.empty()) block->error = name_of(*thread) + ": exception: " + e.what();
  }
  if (block->error.empty() && block->n_at_barrier > 0) {
    for (const Thread& t : block->threads) {
      if (t.state != State::kAtBarrier) continue;
      block->error = name_of(*thread) + " has ended while " + name_of(t) + " waits for all threads of the block at " + place(t.where);
      break;
    }
  }
  thread->state = State::kExited;
  ++block->n_exited;
  release_tag(&launch_end_tag);
  release_tag(&set_tags[set_now][1 - turn_now]);
  switch_fiber(thread->fiber, main_fiber(), true);
}

Thread* next_thread() {
  auto& ready = block->ready;
  if (ready.empty()) return nullptr;
  if (settings.order == Order::kFifo) {
    Thread* thread = ready.front();
    ready.pop_front();
    return thread;
  }
  if (settings.order == Order::kRandom) std::swap(ready[random_source() % ready.size()], ready.back());
  Thread* thread = ready.back();
  ready.pop_back();
  return thread;
}

std::string deadlock() {
  std::map<std::string, std::vector<const Thread*>> waiting;
  for (const Thread& t : block->threads) {
    if (t.state == State::kAtBarrier || t.state == State::kAtWarp) waiting[(t.state == State::kAtBarrier ? "the block at " : "its warp at ") + place(t.where)].push_back(&t);
  }
  std::string text = "deadlock: ";
  for (const auto& [what, threads] : waiting) {
    text += std::to_string(threads.size()) + " threads (first: " + std::to_string(threads[0]->index) + ") wait for " + what + "; ";
  }
  return text + std::to_string(block->n_exited) + " have ended";
}

void run_block(dim3 dims, size_t dynamic_bytes) {
  const unsigned n = dims.x * dims.y * dims.z;
  block->threads.assign(n, Thread{});
  block->ready.clear();
  block->n_exited = block->n_at_barrier = 0;
  turn_now = size_t(n_blocks / kFiberSets % 2);
  set_now = size_t(n_blocks++ % kFiberSets);
  reset_shared(dynamic_bytes, set_now);
  const size_t first = set_now * 1024;  // a block has at most so many threads
  while (fibers.size() < kFiberSets * 1024) fibers.push_back(nullptr);
  for (unsigned i = 0; i < n; ++i) {
    Thread& t = block->threads[i];
    if (!fibers[first + i]) fibers[first + i] = make_fiber(&enter, nullptr);
    t.fiber = fibers[first + i];
    t.index = i;
    t.position = {i % dims.x, i / dims.x % dims.y, i / dims.x / dims.y};
    reset_fiber(t.fiber, &enter, &t);
    block->ready.push_back(&t);
  }
  while (block->error.empty() && block->n_exited < n) {
    self = next_thread();
    if (!self) {
      block->error = deadlock();
      break;
    }
    threadIdx = self->position;
    switch_fiber(main_fiber(), self->fiber);
  }
  self = nullptr;
  if (block->error.empty()) block->error = check_shared();
}

std::string bad_shape(dim3 grid, dim3 dims, size_t dynamic_bytes) {
  if (uint64_t(dims.x) * dims.y * dims.z > 1024 || dims.z > 64) return "a block of " + std::to_string(uint64_t(dims.x) * dims.y * dims.z) + " threads";
  if (dims.x == 0 || dims.y == 0 || dims.z == 0) return "an empty block";
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) return "a grid larger than CUDA allows";
  if (dynamic_bytes > kSharedMost) return std::to_string(dynamic_bytes) + " bytes of dynamic shared memory (at most 99 KiB)";
  return "";
}

// A launch that does not end is ended: nothing can be unwound, the process stops.
void on_timeout(int) {
  dprintf(2, "simt: %s runs for longer than %g s; thread %u of block (%u, %u, %u) runs now\n", kernel_name, settings.timeout_s,
          self ? self->index : 0, blockIdx.x, blockIdx.y, blockIdx.z);
  abort();
}

class Watchdog {
 public:
  Watchdog() {
    signal(SIGRTMIN + 3, &on_timeout);
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGRTMIN + 3;
    if (timer_create(CLOCK_MONOTONIC, &event, &timer_) != 0) throw std::runtime_error("simt: no timer for the watchdog");
    itimerspec when{};
    when.it_value.tv_sec = time_t(settings.timeout_s);
    when.it_value.tv_nsec = long((settings.timeout_s - double(when.it_value.tv_sec)) * 1e9);
    timer_settime(timer_, 0, &when, nullptr);
  }
  ~Watchdog() { timer_delete(timer_); }

 private:
  timer_t timer_;
};

}  // namespace

std::string place(Where where) {
  const std::string file = where.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(where.line());
}

std::string name_of(const Thread& t) { return "thread " + std::to_string(t.index); }

void fail(const std::string& what) {
  if (block->error.empty()) block->error = name_of(*self) + ": " + what;
  throw Failed{};
}

void wait() {
  Thread* me = self;
  switch_fiber(me->fiber, main_fiber());
}

void wake(Thread* thread) {
  thread->state = State::kReady;
  block->ready.push_back(thread);
}

// A fresh address for each meeting of threads: reusing one would order things that nothing orders.
void* new_tag() {
  constexpr size_t kTags = 1 << 20;
  static char* tags = static_cast<char*>(mmap(nullptr, kTags * 8, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  static size_t next = 0;
  return tags + 8 * (next++ % kTags);
}

void fence() {
  release_tag(&fence_tag);
  acquire_tag(&fence_tag);
}

void launch(const char* name, const void* function, dim3 grid, dim3 dims, size_t dynamic_bytes, const std::function<void()>& body) {
  const std::lock_guard lock(one_launch);
  if (const std::string bad = bad_shape(grid, dims, dynamic_bytes); !bad.empty()) throw std::runtime_error(std::string(name) + ": invalid launch: " + bad);
  const Watchdog watchdog;
  Block running;
  block = &running;
  kernel = &body;
  kernel_name = name;
  gridDim = grid;
  blockDim = dims;
  ++launches;
  ++launches_of[function];
  random_source.seed(settings.seed + uint64_t(launches));
  std::vector<uint64_t> order(uint64_t(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), uint64_t(0));
  if (settings.order == Order::kLifo) std::reverse(order.begin(), order.end());
  if (settings.order == Order::kRandom) shuffle_order(order);
  enter_main();
  release_tag(&launch_begin_tag);
  open_memory();
  watch_faults();
  for (size_t i = 0; i < order.size() && running.error.empty(); ++i) {
    blockIdx = {unsigned(order[i] % grid.x), unsigned(order[i] / grid.x % grid.y), unsigned(order[i] / grid.x / grid.y)};
    run_block(dims, dynamic_bytes);
  }
  unwatch_faults();
  close_memory();
  acquire_tag(&launch_end_tag);
  block = nullptr;
  if (!running.error.empty()) {
    for (Fiber* fiber : fibers) {
      if (fiber) abandon_fiber(fiber);
    }
    throw std::runtime_error(std::string(name) + ": block (" + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " +
                             std::to_string(blockIdx.z) + "), " + running.error);
  }
}

void host_task(const char* name, const std::function<void()>& task) {
  const std::lock_guard lock(one_launch);
  kernel_name = name;
  open_memory();
  watch_faults();
  task();
  unwatch_faults();
  close_memory();
}

}  // namespace simt
