#include "fields.h"
#include "module.h"
#include "ops/bind_triangles.h"

namespace gaf {
namespace {

template <class T>
BindTrianglesArgs<T> read(const pybind11::dict& fields) {
  BindTrianglesArgs<T> a{};
  Fields f("bind_triangles", fields);
  f("n_batch", a.n_batch);
  f("n_vertices", a.n_vertices);
  f("n_faces", a.n_faces);
  f("n_gaussians", a.n_gaussians);
  f("vertices", a.vertices);
  f("faces", a.faces);
  f("binding", a.binding);
  f("means", a.means);
  f("quats", a.quats);
  f("log_scales", a.log_scales);
  f("world_means", a.world_means);
  f("world_quats", a.world_quats);
  f("world_scales", a.world_scales);
  f("v_world_means", a.v_world_means);
  f("v_world_quats", a.v_world_quats);
  f("v_world_scales", a.v_world_scales);
  f("v_vertices", a.v_vertices);
  f("v_means", a.v_means);
  f("v_quats", a.v_quats);
  f("v_log_scales", a.v_log_scales);
  f.done();
  return a;
}

template <class T>
void define_bind_triangles_for(pybind11::module_ m) {
  def_cpu(m, "bind_triangles_fwd", read<T>, cpu::bind_triangles_fwd<T>);
  def_cpu(m, "bind_triangles_bwd", read<T>, cpu::bind_triangles_bwd<T>);
}

}  // namespace

void define_bind_triangles(const Modules& m) {
  define_bind_triangles_for<float>(m.cpu_float32);
  define_bind_triangles_for<double>(m.cpu_float64);
  def_cuda(m.cuda_float32, "bind_triangles_fwd", read<float>, cuda::bind_triangles_fwd);
  def_cuda(m.cuda_float32, "bind_triangles_bwd", read<float>, cuda::bind_triangles_bwd);
}

}  // namespace gaf
