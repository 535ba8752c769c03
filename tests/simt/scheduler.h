// What the scheduler's parts know of a running block.
#pragma once
#include <deque>
#include <string>
#include <vector>

#include "fiber.h"
#include "simt.h"

namespace simt {

enum class State { kReady, kAtBarrier, kAtWarp, kExited };

struct Thread {
  Fiber* fiber = nullptr;
  unsigned index = 0;  // in the block
  uint3 position{};
  State state = State::kReady;
  Where where;  // it waits there
  // at a barrier
  Barrier barrier_kind = Barrier::kPlain;
  int result = 0;
  // at a warp intrinsic
  WarpOp op = WarpOp::kSync;
  unsigned mask = 0;
  uint64_t value = 0, warp_result = 0;
  int operand = 0, width = 32;
  void* tag = nullptr;
};

struct Block {
  std::vector<Thread> threads;
  std::deque<Thread*> ready;
  unsigned n_exited = 0, n_at_barrier = 0;
  int votes = 0;
  std::string error;  // first mistake; the block then stops
};

extern Thread* self;   // the running thread
extern Block* block;   // its block; null outside launches
extern const char* kernel_name;

// Ends the launch with a message about the running thread; never returns.
[[noreturn]] void fail(const std::string& what);
// Hands over to another thread; returns when somebody has made this one ready again.
void wait();
void wake(Thread* thread);
void* new_tag();
std::string place(Where where);
std::string name_of(const Thread& thread);

// memory.cpp
void open_memory();   // device memory may be touched
void close_memory();
constexpr size_t kSharedLimit = 48 << 10, kSharedMost = 99 << 10;  // bytes: without asking for more, and with; the smallest card's
void reset_shared(size_t dynamic_bytes, size_t set);
std::string check_shared();  // a message if something was written between the arrays
void watch_faults();
void unwatch_faults();

}  // namespace simt
