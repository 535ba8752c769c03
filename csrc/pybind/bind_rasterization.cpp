#include "cpu/scratch.h"
#include "fields.h"
#include "module.h"
#include "ops/rasterization.h"

namespace gaf {
namespace {

template <class T>
RasterizationProjectArgs<T> read_project(const pybind11::dict& fields) {
  RasterizationProjectArgs<T> a{};
  Fields f("rasterization_project", fields);
  f("n_cameras", a.n_cameras);
  f("n_gaussians", a.n_gaussians);
  f("width", a.width);
  f("height", a.height);
  f("gaussians_per_camera", a.gaussians_per_camera);
  f("colors_per_camera", a.colors_per_camera);
  f("antialiased", a.antialiased);
  f("append_depth", a.append_depth);
  f("sh_degree", a.sh_degree);
  f("n_colors", a.n_colors);
  f("near_plane", a.near_plane);
  f("far_plane", a.far_plane);
  f("eps2d", a.eps2d.given);
  f("eps2d_at", a.eps2d.at);
  f("radius_clip", a.radius_clip);
  f("means", a.means);
  f("quats", a.quats);
  f("scales", a.scales);
  f("opacities", a.opacities);
  f("colors", a.colors);
  f("half_colors", a.half_colors);
  f("viewmats", a.viewmats);
  f("Ks", a.Ks);
  f("splats", a.splats);
  f("radii", a.radii);
  f("means2d", a.means2d);
  f("depths", a.depths);
  f("conics", a.conics);
  f("splat_opacities", a.splat_opacities);
  f("n_nonfinite", a.n_nonfinite);
  f("v_splats", a.v_splats);
  f("v_means2d", a.v_means2d);
  f("v_depths", a.v_depths);
  f("v_means", a.v_means);
  f("v_quats", a.v_quats);
  f("v_scales", a.v_scales);
  f("v_opacities", a.v_opacities);
  f("v_colors", a.v_colors);
  f("v_viewmats", a.v_viewmats);
  f.done();
  return a;
}

template <class T>
void read_blend(Fields& f, RasterizationBlendArgs<T>& a) {
  f("n_cameras", a.n_cameras);
  f("n_gaussians", a.n_gaussians);
  f("width", a.width);
  f("height", a.height);
  f("n_channels", a.n_channels);
  f("absgrad", a.absgrad);
  f("splats", a.splats);
  f("depths", a.depths);
  f("radii", a.radii);
  f("features", a.features);
  f("backgrounds", a.backgrounds);
  f("render", a.render);
  f("alphas", a.alphas);
  f("statistics", a.statistics);
  f("kept", a.kept);
  f("v_render", a.v_render);
  f("v_alphas", a.v_alphas);
  f("v_splats", a.v_splats);
  f("v_means2d", a.v_means2d);
  f("v_means2d_abs", a.v_means2d_abs);
  f("v_features", a.v_features);
  f("v_backgrounds", a.v_backgrounds);
}

template <class T>
RasterizationBlendArgs<T> read_cpu_blend(const pybind11::dict& fields) {
  RasterizationBlendArgs<T> a{};
  Fields f("rasterization_blend", fields);
  read_blend(f, a);
  f.done();
  return a;
}

struct CudaBlend {
  RasterizationBlendArgs<float> args{};
  RasterizationPairRoom room{};
};

CudaBlend read_cuda_blend(const pybind11::dict& fields) {
  CudaBlend b;
  Fields f("rasterization_blend", fields);
  read_blend(f, b.args);
  f("pair_capacity", b.room.capacity);
  f("atomic", b.room.atomic);
  f.done();
  return b;
}

void cuda_blend_fwd(const CudaBlend& b, Stream stream) { cuda::rasterization_blend_fwd(b.args, b.room, stream); }
void cuda_blend_bwd(const CudaBlend& b, Stream stream) { cuda::rasterization_blend_bwd(b.args, b.room, stream); }

template <class T>
void define_rasterization_for(pybind11::module_ m) {
  def_cpu(m, "rasterization_project_fwd", read_project<T>, cpu::rasterization_project_fwd<T>);
  def_cpu(m, "rasterization_project_bwd", read_project<T>, cpu::rasterization_project_bwd<T>);
  m.def("rasterization_blend_fwd", [](int threads, const pybind11::dict& fields) {
    const RasterizationBlendArgs<T> args = read_cpu_blend<T>(fields);
    const pybind11::gil_scoped_release release;
    return cpu::rasterization_blend_fwd(args, threads);
  });
  def_cpu(m, "rasterization_blend_bwd", read_cpu_blend<T>, cpu::rasterization_blend_bwd<T>);
}

}  // namespace

void define_rasterization(const Modules& m) {
  define_rasterization_for<float>(m.cpu_float32);
  define_rasterization_for<double>(m.cpu_float64);
  def_cuda(m.cuda_float32, "rasterization_project_fwd", read_project<float>, cuda::rasterization_project_fwd);
  def_cuda(m.cuda_float32, "rasterization_project_bwd", read_project<float>, cuda::rasterization_project_bwd);
  def_cuda(m.cuda_float32, "rasterization_blend_fwd", read_cuda_blend, cuda_blend_fwd);
  def_cuda(m.cuda_float32, "rasterization_blend_bwd", read_cuda_blend, cuda_blend_bwd);
  // Called as the others are, though it needs neither a stream nor memory.
  pybind11::module_(m.cuda_float32).def("rasterization_blend_kept_bytes", [](int, uintptr_t, const pybind11::object&, const pybind11::dict& fields) {
    const CudaBlend b = read_cuda_blend(fields);
    return cuda::rasterization_blend_kept_bytes(b.args, b.room);
  });
}

}  // namespace gaf
