// The queue a CUDA op is put on.
#pragma once

namespace gaf {

struct Stream {
  int device;    // CUDA device index
  void* handle;  // cudaStream_t
};

}  // namespace gaf
