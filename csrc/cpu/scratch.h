// Memory that is used again: large blocks come from a pool, because pages fresh from the system cost more than most kernels.
#pragma once
#include <cstddef>
#include <utility>

namespace gaf::cpu {

// A block of memory, 128-byte aligned (2 MiB and on huge pages where large), not initialised. Returns to the pool when destroyed.
class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(size_t bytes);
  Scratch(Scratch&& o) noexcept : data_(std::exchange(o.data_, nullptr)), size_(o.size_), capacity_(o.capacity_) {}
  Scratch& operator=(Scratch&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    std::swap(capacity_, o.capacity_);
    return *this;
  }
  ~Scratch();

  size_t size() const { return size_; }
  template <class T = void>
  T* as() const { return static_cast<T*>(data_); }

 private:
  void* data_ = nullptr;
  size_t size_ = 0, capacity_ = 0;
};

template <class T>
Scratch scratch_of(size_t count) { return Scratch(count * sizeof(T)); }

// Bytes that wait in the pool for use, and giving them back to the system. The pool keeps at most 1 GiB.
size_t scratch_pooled();
void scratch_release();

}  // namespace gaf::cpu
