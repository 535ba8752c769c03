// What a CUDA op is given beside its arguments: a queue to be put on, and memory for the time of the call.
#pragma once
#include <cstddef>
#include <cstdint>

namespace gaf {

// Scratch memory on the stream's device. A block lives until the op has returned to the caller and whatever was enqueued meanwhile is done with
// it (the caller's allocator knows the stream), so it may be used by kernels and must not be kept.
class Memory {
 public:
  // At least 256-byte aligned; contents undefined. Throws what the caller's allocator throws when there is none left. n may be 0.
  virtual void* bytes(size_t n) = 0;

 protected:
  ~Memory() = default;
};

struct Stream {
  int device;    // CUDA device index, current while the op runs
  void* handle;  // cudaStream_t
  Memory* memory;

  template <class T>
  T* scratch(int64_t n) const {
    return static_cast<T*>(memory->bytes(size_t(n) * sizeof(T)));
  }
};

}  // namespace gaf
