#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <vector>

#include "fields.h"
#include "module.h"
#include "ops/adam.h"

namespace gaf {

// tensors: rows of (n, value, gradient, mean, square, step, rate), addresses as integers.
void define_adam(const Modules& m) {
  using Row = std::array<uint64_t, 7>;
  pybind11::module_ cuda_float32 = m.cuda_float32;
  cuda_float32.def("adam", [](int device, uintptr_t stream, const pybind11::function& allocate, const std::vector<Row>& tensors, double beta1,
                              double beta2, double eps) {
    PythonMemory memory(allocate);
    const cuda::DeviceGuard guard(device);
    const auto at = [](uint64_t address) { return reinterpret_cast<float*>(uintptr_t(address)); };
    for (size_t first = 0; first < tensors.size(); first += kAdamTensors) {
      AdamArgs a{int(std::min<size_t>(tensors.size() - first, kAdamTensors)), beta1, beta2, eps, {}};
      for (int i = 0; i < a.n_tensors; ++i) {
        const Row& r = tensors[first + size_t(i)];
        a.tensors[i] = {int64_t(r[0]), at(r[1]), at(r[2]), at(r[3]), at(r[4]), at(r[5]), at(r[6])};
      }
      cuda::adam(a, Stream{device, reinterpret_cast<void*>(stream), &memory});
    }
  });
}

}  // namespace gaf
