#include "fields.h"
#include "module.h"
#include "ops/linear_blend_skinning.h"

namespace gaf {
namespace {

template <class T>
LinearBlendSkinningArgs<T> read(const pybind11::dict& fields) {
  LinearBlendSkinningArgs<T> a{};
  Fields f("linear_blend_skinning", fields);
  f("n_batch", a.n_batch);
  f("n_vertices", a.n_vertices);
  f("n_joints", a.n_joints);
  f("vertices", a.vertices);
  f("weights", a.weights);
  f("axis_angles", a.axis_angles);
  f("joints", a.joints);
  f("parents", a.parents);
  f("translations", a.translations);
  f("posed", a.posed);
  f("transforms", a.transforms);
  f("v_posed", a.v_posed);
  f("v_vertices", a.v_vertices);
  f("v_axis_angles", a.v_axis_angles);
  f("v_joints", a.v_joints);
  f("v_translations", a.v_translations);
  f.done();
  return a;
}

template <class T>
void define_linear_blend_skinning_for(pybind11::module_ m) {
  def_cpu(m, "linear_blend_skinning_fwd", read<T>, cpu::linear_blend_skinning_fwd<T>);
  def_cpu(m, "linear_blend_skinning_bwd", read<T>, cpu::linear_blend_skinning_bwd<T>);
}

}  // namespace

void define_linear_blend_skinning(const Modules& m) {
  define_linear_blend_skinning_for<float>(m.cpu_float32);
  define_linear_blend_skinning_for<double>(m.cpu_float64);
  def_cuda(m.cuda_float32, "linear_blend_skinning_fwd", read<float>, cuda::linear_blend_skinning_fwd);
  def_cuda(m.cuda_float32, "linear_blend_skinning_bwd", read<float>, cuda::linear_blend_skinning_bwd);
}

}  // namespace gaf
