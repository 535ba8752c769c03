// What the bindings' CPU half calls here: the emulator has csrc/cuda only, and compiling csrc/cpu again, for every instruction set, took longer
// than any of its three builds. (csrc/cuda/no_cuda.cpp is the same for the GPU's half.)
#include <stdexcept>

#include "cpu/scratch.h"
#include "ops/bind_triangles.h"
#include "ops/interpolate.h"
#include "ops/linear_blend_skinning.h"
#include "ops/photometric_loss.h"
#include "ops/rasterization.h"
#include "ops/rasterize_mesh.h"

namespace gaf::cpu {

Scratch::~Scratch() = default;  // there are none

#define SIMT_NO_CPU(Result, op, Args) \
  template <class T> \
  Result op(const Args<T>&, int) { throw std::logic_error(#op ": the emulator has CUDA's kernels only; gafcore.native has the CPU's"); } \
  template Result op<float>(const Args<float>&, int); \
  template Result op<double>(const Args<double>&, int);
SIMT_NO_CPU(void, bind_triangles_fwd, BindTrianglesArgs)
SIMT_NO_CPU(void, bind_triangles_bwd, BindTrianglesArgs)
SIMT_NO_CPU(void, interpolate_fwd, InterpolateArgs)
SIMT_NO_CPU(void, interpolate_bwd, InterpolateArgs)
SIMT_NO_CPU(void, linear_blend_skinning_fwd, LinearBlendSkinningArgs)
SIMT_NO_CPU(void, linear_blend_skinning_bwd, LinearBlendSkinningArgs)
SIMT_NO_CPU(void, photometric_loss_fwd, PhotometricLossArgs)
SIMT_NO_CPU(void, photometric_loss_bwd, PhotometricLossArgs)
SIMT_NO_CPU(void, rasterization_project_fwd, RasterizationProjectArgs)
SIMT_NO_CPU(void, rasterization_project_bwd, RasterizationProjectArgs)
SIMT_NO_CPU(Scratch, rasterization_blend_fwd, RasterizationBlendArgs)
SIMT_NO_CPU(void, rasterization_blend_bwd, RasterizationBlendArgs)
SIMT_NO_CPU(void, rasterize_mesh_fwd, RasterizeMeshArgs)
SIMT_NO_CPU(void, rasterize_mesh_bwd, RasterizeMeshArgs)

}  // namespace gaf::cpu
