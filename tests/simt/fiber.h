// Fibers: stacks that are switched by hand, with what the sanitizers must be told about it.
#pragma once
#include <cstddef>

namespace simt {

struct Fiber;

// The stack that the scheduler runs on, to come back to.
Fiber* main_fiber();
// Before the first switch of a launch: the caller's stack is the main one now (launches may come from several system threads, one at a time).
void enter_main();
// A fiber that calls entry(argument) when first switched to; entry must not return, it switches away for the last time.
Fiber* make_fiber(void (*entry)(void*), void* argument);
// For another function; also for a fiber that was left in the middle of its old one.
void reset_fiber(Fiber* fiber, void (*entry)(void*), void* argument);
// What it did is no longer of interest: after a launch that failed, which leaves fibers in the middle of something.
void abandon_fiber(Fiber* fiber);
// Blocks take turns with so many sets of fibers. The race detector takes what one fiber does in two blocks as ordered, and so, where there are
// barriers, what one set does; with several sets it compares each block with most others.
constexpr unsigned kMostFiberSets = 3;
extern const unsigned kFiberSets;
// last: the fiber that is left will not be switched to again before reset_fiber.
void switch_fiber(Fiber* from, Fiber* to, bool last = false);

// Order of memory for the race detector: what was done before `release_tag` is seen after a later `acquire_tag`.
void release_tag(void* tag);
void acquire_tag(void* tag);
// Memory that must not be touched, for the address sanitizer; n and p in multiples of 8 where it matters.
void forbid(void* p, size_t n);
void allow(void* p, size_t n);
bool has_address_sanitizer();

}  // namespace simt
