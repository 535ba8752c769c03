// The module that the emulator's tests load: csrc/cuda behind the same bindings as on a GPU, and the emulator's own functions.
#include "pybind/module.h"

#include <dlfcn.h>
#include <pybind11/stl.h>

#include "planted.h"
#include "simt.h"

namespace {

void configure(const std::string& order, uint64_t seed, double timeout_s) {
  simt::settings.order = order == "lifo" ? simt::Order::kLifo : order == "random" ? simt::Order::kRandom : simt::Order::kFifo;
  simt::settings.seed = seed;
  simt::settings.timeout_s = timeout_s;
}

// Launches so far by the kernel's place in this module's file, where `nm` names it.
std::map<uintptr_t, int64_t> launches_by_place() {
  std::map<uintptr_t, int64_t> result;
  for (const auto& [kernel, n] : simt::launches_of) {
    Dl_info info{};
    if (dladdr(kernel, &info)) result[reinterpret_cast<uintptr_t>(kernel) - reinterpret_cast<uintptr_t>(info.dli_fbase)] = n;
  }
  return result;
}

void* pointer(uintptr_t p) { return reinterpret_cast<void*>(p); }

}  // namespace

PYBIND11_MODULE(_simt, m) {
  m.def("configure", &configure, pybind11::arg("order"), pybind11::arg("seed"), pybind11::arg("timeout_s"));
  m.def("allocate", [](size_t n) { return reinterpret_cast<uintptr_t>(simt::allocate(n)); });
  m.def("release", [](uintptr_t p) { simt::release(pointer(p)); });
  m.def("write", [](uintptr_t device, uintptr_t host, size_t n) { simt::write(pointer(device), pointer(host), n); });
  m.def("read", [](uintptr_t host, uintptr_t device, size_t n) { simt::read(pointer(host), pointer(device), n); });
  m.def("launches", [] { return simt::launches; });
  m.def("launches_by_place", &launches_by_place);
  const gaf::Modules modules{m.def_submodule("cpu_float32"), m.def_submodule("cpu_float64"), m.def_submodule("cuda_float32")};
  gaf::define_adam(modules);
  gaf::define_bind_triangles(modules);
  gaf::define_interpolate(modules);
  gaf::define_linear_blend_skinning(modules);
  gaf::define_photometric_loss(modules);
  gaf::define_rasterization(modules);
  gaf::define_rasterize_mesh(modules);
  m.attr("planted") = planted_names();
  m.def("run_planted", [](const std::string& name, bool right, uintptr_t out) { run_planted(name, right, reinterpret_cast<float*>(out)); });
}
