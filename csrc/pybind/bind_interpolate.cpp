#include "fields.h"
#include "module.h"
#include "ops/interpolate.h"

namespace gaf {
namespace {

template <class T>
InterpolateArgs<T> read(const pybind11::dict& fields) {
  InterpolateArgs<T> a{};
  Fields f("interpolate", fields);
  f("n_cameras", a.n_cameras);
  f("n_pixels", a.n_pixels);
  f("n_meshes", a.n_meshes);
  f("n_vertices", a.n_vertices);
  f("n_channels", a.n_channels);
  f("n_faces", a.n_faces);
  f("attributes", a.attributes);
  f("faces", a.faces);
  f("triangle_ids", a.triangle_ids);
  f("barycentrics", a.barycentrics);
  f("image", a.image);
  f("v_image", a.v_image);
  f("v_attributes", a.v_attributes);
  f("v_barycentrics", a.v_barycentrics);
  f.done();
  return a;
}

template <class T>
void define_interpolate_for(pybind11::module_ m) {
  def_cpu(m, "interpolate_fwd", read<T>, cpu::interpolate_fwd<T>);
  def_cpu(m, "interpolate_bwd", read<T>, cpu::interpolate_bwd<T>);
}

}  // namespace

void define_interpolate(const Modules& m) {
  define_interpolate_for<float>(m.cpu_float32);
  define_interpolate_for<double>(m.cpu_float64);
  def_cuda(m.cuda_float32, "interpolate_fwd", read<float>, cuda::interpolate_fwd);
  def_cuda(m.cuda_float32, "interpolate_bwd", read<float>, cuda::interpolate_bwd);
}

}  // namespace gaf
