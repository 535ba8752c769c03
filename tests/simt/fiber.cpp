#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

// This file is compiled without -fsanitize (it is the sanitizers' business what stack we are on); SIMT_ASAN or SIMT_TSAN says what is linked.
extern "C" {
#if defined(SIMT_ASAN)
void __sanitizer_start_switch_fiber(void** fake_stack_save, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack_save, const void** bottom_old, size_t* size_old);
void __asan_poison_memory_region(void const volatile* p, size_t n);
void __asan_unpoison_memory_region(void const volatile* p, size_t n);
#endif
#if defined(SIMT_TSAN)
void* __tsan_get_current_fiber(void);
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* p);
void __tsan_release(void* p);
#endif
}

namespace simt {

namespace {
#if defined(SIMT_ASAN) || defined(SIMT_TSAN)
constexpr size_t kStack = 256 << 10;  // their frames are larger
#else
constexpr size_t kStack = 64 << 10;
#endif
constexpr size_t kPage = 4096;
}  // namespace

struct Fiber {
  char* stack = nullptr;  // lowest address, above a guard page; null: the main stack
  void (*entry)(void*) = nullptr;
  void* argument = nullptr;
  void* sp = nullptr;
#if !defined(__x86_64__)
  ucontext_t context;
#endif
#if defined(SIMT_ASAN)
  void* fake_stack = nullptr;
  const void* bottom = nullptr;
  size_t size = 0;
  bool ended = false;  // rather than left in the middle: nothing on its stack is marked
#endif
#if defined(SIMT_TSAN)
  void* tsan = nullptr;
#endif
};

namespace {

Fiber* switched_from = nullptr;

void arrived(Fiber* self) {
#if defined(SIMT_ASAN)
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(self->fake_stack, &bottom, &size);
  if (switched_from && !switched_from->stack) switched_from->bottom = bottom, switched_from->size = size;  // learn where the main stack is
#else
  (void)self;
#endif
}

Fiber* starting = nullptr;

extern "C" __attribute__((used)) void simt_fiber_start() {
  Fiber* self = starting;
  arrived(self);
  self->entry(self->argument);
  abort();  // entry does not return
}

}  // namespace

#if defined(__x86_64__)
// void simt_switch(void** save_sp, void* sp): callee-saved registers go onto the old stack and come from the new one.
extern "C" void simt_switch(void** save_sp, void* sp);
asm(R"(
.text
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch, .-simt_switch
)");
#endif

Fiber* main_fiber() {
  static Fiber main;
  return &main;
}

void enter_main() {
#if defined(SIMT_TSAN)
  main_fiber()->tsan = __tsan_get_current_fiber();
#endif
}

Fiber* make_fiber(void (*entry)(void*), void* argument) {
  char* p = static_cast<char*>(mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (p == MAP_FAILED) throw std::runtime_error("simt: no memory for a thread's stack");
  mprotect(p, kPage, PROT_NONE);
  Fiber* fiber = new Fiber;
  fiber->stack = p + kPage;
  reset_fiber(fiber, entry, argument);
  return fiber;
}

void reset_fiber(Fiber* fiber, void (*entry)(void*), void* argument) {
  fiber->entry = entry;
  fiber->argument = argument;
#if defined(SIMT_ASAN)
  fiber->fake_stack = nullptr;
  fiber->bottom = fiber->stack;
  fiber->size = kStack;
  if (!fiber->ended) __asan_unpoison_memory_region(fiber->stack, kStack);
  fiber->ended = false;
#endif
#if defined(SIMT_TSAN)
  if (!fiber->tsan) fiber->tsan = __tsan_create_fiber(0);  // a millisecond each: kept for the next block that uses this fiber
#endif
#if defined(__x86_64__)
  void** top = reinterpret_cast<void**>(fiber->stack + kStack - 64);
  *--top = nullptr;  // return address of the start function: the stack is then aligned as after a call
  *--top = reinterpret_cast<void*>(&simt_fiber_start);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber->sp = top;
#else
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = fiber->stack;
  fiber->context.uc_stack.ss_size = kStack;
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, &simt_fiber_start, 0);
#endif
}

void abandon_fiber(Fiber* fiber) {
#if defined(SIMT_TSAN)
  if (fiber->tsan) __tsan_destroy_fiber(fiber->tsan);
  fiber->tsan = nullptr;
#elif defined(SIMT_ASAN)
  fiber->ended = false;  // an exception may have ended it, and marks be left
#else
  (void)fiber;
#endif
}

#if defined(SIMT_TSAN)
const unsigned kFiberSets = kMostFiberSets;
#else
const unsigned kFiberSets = 1;
#endif

void switch_fiber(Fiber* from, Fiber* to, bool last) {
  switched_from = from;
  starting = to;
#if defined(SIMT_ASAN)
  from->ended = last;
  __sanitizer_start_switch_fiber(last ? nullptr : &from->fake_stack, to->bottom, to->size);
#else
  (void)last;
#endif
#if defined(SIMT_TSAN)
  __tsan_switch_to_fiber(to->tsan, 1);  // 1: the switch itself orders nothing
#endif
#if defined(__x86_64__)
  simt_switch(&from->sp, to->sp);
#else
  swapcontext(&from->context, &to->context);
#endif
  arrived(from);
}

#if defined(SIMT_TSAN)
void release_tag(void* tag) { __tsan_release(tag); }
void acquire_tag(void* tag) { __tsan_acquire(tag); }
#else
void release_tag(void*) {}
void acquire_tag(void*) {}
#endif

#if defined(SIMT_ASAN)
void forbid(void* p, size_t n) { __asan_poison_memory_region(p, n); }
void allow(void* p, size_t n) { __asan_unpoison_memory_region(p, n); }
bool has_address_sanitizer() { return true; }
#else
void forbid(void*, size_t) {}
void allow(void*, size_t) {}
bool has_address_sanitizer() { return false; }
#endif

}  // namespace simt
