// Where threads meet: barriers of a block and intrinsics of a warp. What CUDA leaves undefined is reported.
#include <string>

#include "scheduler.h"

namespace simt {

int barrier(Barrier kind, int predicate, Where where) {
  Thread* me = self;
  Block& b = *block;
  for (const Thread& t : b.threads) {
    if (t.state == State::kExited) fail("waits for all threads of the block at " + place(where) + ", but " + name_of(t) + " has ended");
    if (t.state != State::kAtBarrier) continue;
    if (t.where.line() != where.line() || t.barrier_kind != kind) {
      fail("divergent barrier: it is at " + place(where) + ", " + name_of(t) + " at " + place(t.where));
    }
    break;
  }
  if (b.n_at_barrier == 0) b.votes = 0;
  b.votes += predicate != 0;
  me->state = State::kAtBarrier;
  me->where = where;
  me->barrier_kind = kind;
  // One tag for each meeting: all give before any takes.
  void* tag = nullptr;
  for (const Thread& t : b.threads) {
    if (t.state == State::kAtBarrier && &t != me) {
      tag = t.tag;
      break;
    }
  }
  me->tag = tag ? tag : new_tag();
  release_tag(me->tag);
  if (++b.n_at_barrier < b.threads.size()) {
    wait();
  } else {
    const int n = int(b.threads.size()), votes = b.votes;
    const int result = kind == Barrier::kOr ? votes > 0 : kind == Barrier::kAnd ? votes == n : kind == Barrier::kCount ? votes : 0;
    b.n_at_barrier = 0;
    for (Thread& t : b.threads) {
      t.result = result;
      wake(&t);
    }
    wait();  // whoever comes last has no head start
  }
  threadIdx = me->position;
  acquire_tag(me->tag);
  return me->result;
}

namespace {

const char* const kNames[] = {"__syncwarp", "__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync", "a vote", "__match_any_sync",
                              "__reduce_add_sync", "__reduce_min_sync", "__reduce_max_sync", "__reduce_min_sync", "__reduce_max_sync"};

Thread* lane(Thread* me, unsigned index) {
  const unsigned i = me->index / 32 * 32 + index;
  return i < block->threads.size() ? &block->threads[i] : nullptr;
}

// Lane that a shuffle of `me` reads from; its own where CUDA says so.
unsigned source_lane(const Thread& me) {
  const unsigned own = me.index % 32, width = unsigned(me.width), first = own / width * width;
  switch (me.op) {
    case WarpOp::kShuffle: return first + unsigned(me.operand) % width;
    case WarpOp::kUp: return own - first >= unsigned(me.operand) ? own - unsigned(me.operand) : own;
    case WarpOp::kDown: return own - first + unsigned(me.operand) < width ? own + unsigned(me.operand) : own;
    default: {  // xor; into a later segment: its own
      const unsigned source = own ^ unsigned(me.operand);
      return source < first + width ? source : own;
    }
  }
}

template <class F>
uint64_t reduce(Thread* me, F&& f) {
  bool first = true;
  uint64_t total = 0;
  for (unsigned i = 0; i < 32; ++i) {
    if (!(me->mask >> i & 1)) continue;
    total = first ? lane(me, i)->value : f(total, lane(me, i)->value);
    first = false;
  }
  return total;
}

uint64_t result_of(Thread* me) {
  switch (me->op) {
    case WarpOp::kSync: return 0;
    case WarpOp::kBallot: {
      uint64_t bits = 0;
      for (unsigned i = 0; i < 32; ++i) bits |= uint64_t((me->mask >> i & 1) && lane(me, i)->value) << i;
      return bits;
    }
    case WarpOp::kMatchAny: {
      uint64_t bits = 0;
      for (unsigned i = 0; i < 32; ++i) bits |= uint64_t((me->mask >> i & 1) && lane(me, i)->value == me->value) << i;
      return bits;
    }
    case WarpOp::kSum: return reduce(me, [](uint64_t a, uint64_t b) { return a + b; });
    case WarpOp::kMin: return reduce(me, [](uint64_t a, uint64_t b) { return a < b ? a : b; });
    case WarpOp::kMax: return reduce(me, [](uint64_t a, uint64_t b) { return a > b ? a : b; });
    case WarpOp::kMinSigned: return reduce(me, [](uint64_t a, uint64_t b) { return int64_t(a) < int64_t(b) ? a : b; });
    case WarpOp::kMaxSigned: return reduce(me, [](uint64_t a, uint64_t b) { return int64_t(a) > int64_t(b) ? a : b; });
    default: break;
  }
  const unsigned source = source_lane(*me);
  if (!(me->mask >> source & 1)) {
    block->error = name_of(*me) + ": " + kNames[int(me->op)] + " at " + place(me->where) + " reads lane " + std::to_string(source) + ", which is not in its mask";
    return 0;
  }
  return lane(me, source)->value;
}

}  // namespace

uint64_t warp(WarpOp op, unsigned mask, uint64_t value, int operand, int width, Where where) {
  Thread* me = self;
  const auto what = [&] { return std::string(kNames[int(op)]) + " at " + place(where); };  // made on failure only: this runs a million times
  if (!(mask >> (me->index % 32) & 1)) fail(what() + " is called by a lane that is not in its mask");
  if (width <= 0 || width > 32 || (width & (width - 1)) != 0) fail(what() + ": width must be a power of two up to 32");
  me->state = State::kAtWarp;
  me->where = where;
  me->op = op;
  me->mask = mask;
  me->value = value;
  me->operand = operand;
  me->width = width;
  me->tag = nullptr;
  bool all_here = true;
  for (unsigned i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    const Thread* other = lane(me, i);
    if (!other) fail(what() + ": lane " + std::to_string(i) + " of its mask does not exist");
    if (other->state == State::kExited) fail(what() + ": " + name_of(*other) + " of its mask has ended");
    if (other->state != State::kAtWarp) {
      all_here = false;
      continue;
    }
    if (other->mask != mask) fail(what() + ": its mask differs from that of " + name_of(*other) + " at " + place(other->where));
    if (other->op != op || other->where.line() != where.line()) {
      fail(what() + ", but " + name_of(*other) + " of its mask is in " + kNames[int(other->op)] + " at " + place(other->where));
    }
    if (op == WarpOp::kSync && other->tag) me->tag = other->tag;
  }
  // Only __syncwarp orders memory.
  if (op == WarpOp::kSync) {
    if (!me->tag) me->tag = new_tag();
    release_tag(me->tag);
  }
  if (all_here) {
    const bool each_its_own = op == WarpOp::kShuffle || op == WarpOp::kUp || op == WarpOp::kDown || op == WarpOp::kXor || op == WarpOp::kMatchAny;
    const uint64_t common = each_its_own ? 0 : result_of(me);
    for (unsigned i = 0; i < 32; ++i) {
      if (mask >> i & 1) lane(me, i)->warp_result = each_its_own ? result_of(lane(me, i)) : common;
    }
    for (unsigned i = 0; i < 32; ++i) {
      if (mask >> i & 1) wake(lane(me, i));
    }
  }
  wait();
  threadIdx = me->position;
  if (op == WarpOp::kSync) acquire_tag(me->tag);
  return me->warp_result;
}

}  // namespace simt
