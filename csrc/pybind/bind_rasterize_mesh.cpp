#include "fields.h"
#include "module.h"
#include "ops/rasterize_mesh.h"

namespace gaf {
namespace {

template <class T>
RasterizeMeshArgs<T> read(const pybind11::dict& fields) {
  RasterizeMeshArgs<T> a{};
  Fields f("rasterize_mesh", fields);
  f("n_cameras", a.n_cameras);
  f("n_meshes", a.n_meshes);
  f("n_vertices", a.n_vertices);
  f("n_faces", a.n_faces);
  f("width", a.width);
  f("height", a.height);
  f("near_plane", a.near_plane);
  f("vertices", a.vertices);
  f("faces", a.faces);
  f("viewmats", a.viewmats);
  f("Ks", a.Ks);
  f("triangle_ids", a.triangle_ids);
  f("barycentrics", a.barycentrics);
  f("depth", a.depth);
  f("v_barycentrics", a.v_barycentrics);
  f("v_depth", a.v_depth);
  f("v_vertices", a.v_vertices);
  f("v_viewmats", a.v_viewmats);
  f.done();
  return a;
}

template <class T>
void define_rasterize_mesh_for(pybind11::module_ m) {
  def_cpu(m, "rasterize_mesh_fwd", read<T>, cpu::rasterize_mesh_fwd<T>);
  def_cpu(m, "rasterize_mesh_bwd", read<T>, cpu::rasterize_mesh_bwd<T>);
}

}  // namespace

void define_rasterize_mesh(const Modules& m) {
  define_rasterize_mesh_for<float>(m.cpu_float32);
  define_rasterize_mesh_for<double>(m.cpu_float64);
  def_cuda(m.cuda_float32, "rasterize_mesh_fwd", read<float>, cuda::rasterize_mesh_fwd);
  def_cuda(m.cuda_float32, "rasterize_mesh_bwd", read<float>, cuda::rasterize_mesh_bwd);
}

}  // namespace gaf
