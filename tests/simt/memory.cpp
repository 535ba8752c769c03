// Device memory between guard pages, shared memory between red zones.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "scheduler.h"

namespace simt {
namespace {

constexpr size_t kPage = 4096, kAlign = 16, kGuard = 16 * kPage;
constexpr unsigned char kFresh = 0xff, kCanary = 0xa5;

struct Allocation {
  char* base;     // of the mapping: a guard, data, a guard
  size_t mapped;  // bytes of data, whole pages
  char* p;
  size_t n;
};

std::map<const void*, Allocation> allocations;
bool open_now = false;

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

void protect(const Allocation& a, int how) { mprotect(a.base + kGuard, a.mapped, how); }

// Bytes between the data's end and the guard page: there because data starts aligned.
size_t slack(const Allocation& a) { return size_t(a.base + kGuard + a.mapped - (a.p + a.n)); }

class Opened {
 public:
  Opened() : was_(open_now) {
    if (!was_) open_memory();
  }
  ~Opened() {
    if (!was_) close_memory();
  }

 private:
  bool was_;
};

// ---- shared memory of the running block

constexpr size_t kRedZone = 64, kArena = 256 << 10;

struct SharedArray {
  std::string name;
  size_t begin, bytes;
};

// One for each set of fibers: blocks on different sets are not ordered, and must not seem to share memory either.
alignas(256) char arenas[kMostFiberSets][kArena];
char* arena = arenas[0];
std::map<const void*, SharedArray> arrays;
size_t used = 0, claimed = 0, dynamic_begin = 0, dynamic_size = 0;

size_t place_shared(size_t bytes, size_t alignment) {
  const size_t begin = round_up(used + kRedZone, std::max<size_t>(alignment, 16));
  used = begin + bytes;
  if (used + kRedZone > kArena) throw std::runtime_error("simt: more shared memory than the arena holds");
  allow(arena + begin, bytes);
  std::memset(arena + begin, kFresh, bytes);
  return begin;
}

}  // namespace

void* allocate(size_t n) {
  Allocation a;
  a.n = n;
  a.mapped = round_up(std::max<size_t>(n, 1), kPage);
  a.base = static_cast<char*>(mmap(nullptr, a.mapped + 2 * kGuard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (a.base == MAP_FAILED) throw std::runtime_error("simt: out of memory, " + std::to_string(n) + " bytes were asked for");
  a.p = a.base + kGuard + a.mapped - round_up(n, kAlign);
  protect(a, PROT_READ | PROT_WRITE);
  std::memset(a.base + kGuard, kCanary, a.mapped);
  std::memset(a.p, kFresh, n);
  if (!open_now) protect(a, PROT_NONE);
  forbid(a.p + n, slack(a));
  allocations[a.p] = a;
  return a.p;
}

void release(void* p) {
  const auto found = allocations.find(p);
  if (found == allocations.end()) throw std::runtime_error("simt: release of memory that was not allocated");
  const Allocation a = found->second;
  allocations.erase(found);
  protect(a, PROT_READ | PROT_WRITE);
  allow(a.p + a.n, slack(a));
  bool intact = true;
  for (char* c = a.base + kGuard; c < a.p; ++c) intact &= static_cast<unsigned char>(*c) == kCanary;
  for (size_t i = 0; i < slack(a); ++i) intact &= static_cast<unsigned char>(a.p[a.n + i]) == kCanary;
  munmap(a.base, a.mapped + 2 * kGuard);
  if (!intact) throw std::runtime_error("simt: a kernel wrote just outside of an array of " + std::to_string(a.n) + " bytes");
}

void write(void* device, const void* host, size_t n) {
  const Opened opened;
  std::memcpy(device, host, n);
}
void read(void* host, const void* device, size_t n) {
  const Opened opened;
  std::memcpy(host, device, n);
}
void fill(void* device, int value, size_t n) {
  const Opened opened;
  if (n > 0) std::memset(device, value, n);
}

void open_memory() {
  for (const auto& [p, a] : allocations) protect(a, PROT_READ | PROT_WRITE);
  open_now = true;
}
void close_memory() {
  for (const auto& [p, a] : allocations) protect(a, PROT_NONE);
  open_now = false;
}

void reset_shared(size_t dynamic_bytes, size_t set) {
  arena = arenas[set];
  arrays.clear();
  used = 0;
  claimed = dynamic_bytes;
  allow(arena, kArena);
  std::memset(arena, kCanary, kArena);
  forbid(arena, kArena);
  dynamic_size = dynamic_bytes;
  dynamic_begin = dynamic_bytes ? place_shared(dynamic_bytes, 16) : 0;
}

void* dynamic_shared() {
  if (dynamic_size == 0) fail("uses dynamic shared memory, but was launched without");
  return arena + dynamic_begin;
}

void* shared(const void* site, size_t bytes, size_t alignment, const char* name) {
  auto found = arrays.find(site);
  if (found == arrays.end()) {
    claimed += bytes;
    const size_t limit = dynamic_size > kSharedLimit ? kSharedMost : kSharedLimit;
    if (claimed > limit) fail("more than " + std::to_string(limit >> 10) + " KiB of shared memory, with " + std::string(name));
    found = arrays.emplace(site, SharedArray{name, place_shared(bytes, alignment), bytes}).first;
  }
  return arena + found->second.begin;
}

std::string check_shared() {
  allow(arena, kArena);
  std::vector<bool> data(used + kRedZone, false);
  for (const auto& [site, a] : arrays) std::fill(data.begin() + std::ptrdiff_t(a.begin), data.begin() + std::ptrdiff_t(a.begin + a.bytes), true);
  std::fill(data.begin() + std::ptrdiff_t(dynamic_begin), data.begin() + std::ptrdiff_t(dynamic_begin + dynamic_size), true);
  for (size_t i = 0; i < data.size(); ++i) {
    if (data[i] || static_cast<unsigned char>(arena[i]) == kCanary) continue;
    const SharedArray* nearest = nullptr;
    for (const auto& [site, a] : arrays) {
      if (a.begin + a.bytes <= i && (!nearest || a.begin > nearest->begin)) nearest = &a;
    }
    return "shared memory was written " + (nearest ? std::to_string(i - nearest->begin - nearest->bytes) + " bytes behind " + nearest->name : "before the first array");
  }
  return "";
}

// ---- wild accesses

namespace {

struct sigaction before;
alignas(16) char signal_stack[64 << 10];
stack_t stack_before;

void on_fault(int, siginfo_t* info, void*) {
  const char* address = static_cast<const char*>(info->si_addr);
  dprintf(2, "simt: %s, block (%u, %u, %u), thread %u: access to %p", kernel_name, blockIdx.x, blockIdx.y, blockIdx.z, self ? self->index : 0, info->si_addr);
  for (const auto& [p, a] : allocations) {
    if (address >= a.base && address < a.base + a.mapped + 2 * kGuard) {
      dprintf(2, ", %td bytes from the beginning of an array of %zu bytes", address - a.p, a.n);
    }
  }
  dprintf(2, "\n");
  sigaction(SIGSEGV, &before, nullptr);  // returning repeats the access, and the process ends
}

}  // namespace

void watch_faults() {
  if (has_address_sanitizer()) return;  // it has its own handler, with more to tell
  stack_t stack{};
  stack.ss_sp = signal_stack;
  stack.ss_size = sizeof signal_stack;
  sigaltstack(&stack, &stack_before);
  struct sigaction action {};
  action.sa_sigaction = &on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &before);
}

void unwatch_faults() {
  if (has_address_sanitizer()) return;
  sigaction(SIGSEGV, &before, nullptr);
  sigaltstack(&stack_before, nullptr);
}

}  // namespace simt
