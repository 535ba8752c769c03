// The submodules of gafcore.native._native, and what each op adds to them.
#pragma once
#include <pybind11/pybind11.h>

namespace gaf {

struct Modules {
  pybind11::module_ cpu_float32, cpu_float64, cuda_float32;
};

void define_scratch(pybind11::module_&);
void define_adam(const Modules&);
void define_bind_triangles(const Modules&);
void define_interpolate(const Modules&);
void define_linear_blend_skinning(const Modules&);
void define_photometric_loss(const Modules&);
void define_rasterization(const Modules&);
void define_rasterize_mesh(const Modules&);

}  // namespace gaf
