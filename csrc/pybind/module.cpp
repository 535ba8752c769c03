#include "module.h"

#include "cpu/isa.h"
#include "ops/device.h"

PYBIND11_MODULE(_native, m) {
  m.doc() = "gafcore's kernels: pointers and sizes in, nothing decided. Use gafcore.ops.";
  m.def("isa_name", &gaf::cpu::isa_name, "Instruction set chosen for the vectorised kernels.");
#if defined(__clang__)
  m.attr("compiler") = __VERSION__;  // names itself
#else
  m.attr("compiler") = "gcc " __VERSION__;
#endif
#if defined(GAF_WITH_CUDA)
  m.attr("has_cuda") = true;
  m.attr("cuda_architectures") = GAF_CUDA_ARCHITECTURES;
#else
  m.attr("has_cuda") = false;
  m.attr("cuda_architectures") = "";
#endif
  m.def("cuda_obstacle", &gaf::cuda::obstacle, "What stands in the way of running CUDA kernels here; empty where nothing does.");
  m.def("cuda_runtime_version", &gaf::cuda::runtime_version, "Of the CUDA runtime the module was built with, for example 13000; 0 without.");
  const gaf::Modules modules{m.def_submodule("cpu_float32"), m.def_submodule("cpu_float64"), m.def_submodule("cuda_float32")};
  gaf::define_scratch(m);
  gaf::define_adam(modules);
  gaf::define_bind_triangles(modules);
  gaf::define_interpolate(modules);
  gaf::define_linear_blend_skinning(modules);
  gaf::define_photometric_loss(modules);
  gaf::define_rasterization(modules);
  gaf::define_rasterize_mesh(modules);
}
