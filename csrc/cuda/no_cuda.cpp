// What the CUDA backend says where it was not compiled. Compiled instead of the .cu files.
#include <stdexcept>
#include <string>

#include "ops/adam.h"
#include "ops/bind_triangles.h"
#include "ops/device.h"
#include "ops/interpolate.h"
#include "ops/linear_blend_skinning.h"
#include "ops/photometric_loss.h"
#include "ops/rasterization.h"
#include "ops/rasterize_mesh.h"

namespace gaf::cuda {

int set_device(int) { throw std::runtime_error("gafcore was built without CUDA; `gafcore doctor` says how to get it"); }
std::string obstacle() { return "not compiled"; }
int runtime_version() { return 0; }

#define GAF_NO_CUDA(op, Args) \
  void op(const Args<float>&, Stream) { throw std::runtime_error(#op ": gafcore was built without CUDA; `gafcore doctor` says how to get it"); }
GAF_NO_CUDA(bind_triangles_fwd, BindTrianglesArgs)
GAF_NO_CUDA(bind_triangles_bwd, BindTrianglesArgs)
GAF_NO_CUDA(interpolate_fwd, InterpolateArgs)
GAF_NO_CUDA(interpolate_bwd, InterpolateArgs)
GAF_NO_CUDA(linear_blend_skinning_fwd, LinearBlendSkinningArgs)
GAF_NO_CUDA(linear_blend_skinning_bwd, LinearBlendSkinningArgs)
GAF_NO_CUDA(photometric_loss_fwd, PhotometricLossArgs)
GAF_NO_CUDA(photometric_loss_bwd, PhotometricLossArgs)
GAF_NO_CUDA(rasterization_project_fwd, RasterizationProjectArgs)
GAF_NO_CUDA(rasterization_project_bwd, RasterizationProjectArgs)
GAF_NO_CUDA(rasterize_mesh_fwd, RasterizeMeshArgs)
GAF_NO_CUDA(rasterize_mesh_bwd, RasterizeMeshArgs)

int64_t rasterization_blend_kept_bytes(const RasterizationBlendArgs<float>&, const RasterizationPairRoom&) { return 0; }
void rasterization_blend_fwd(const RasterizationBlendArgs<float>&, const RasterizationPairRoom&, Stream stream) {
  rasterization_project_fwd({}, stream);
}
void rasterization_blend_bwd(const RasterizationBlendArgs<float>&, const RasterizationPairRoom&, Stream stream) {
  rasterization_project_bwd({}, stream);
}

void adam(const AdamArgs&, Stream) { throw std::runtime_error("adam: gafcore was built without CUDA; `gafcore doctor` says how to get it"); }

}  // namespace gaf::cuda
