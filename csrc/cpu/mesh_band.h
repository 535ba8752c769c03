// The z-buffer of a band of rows: the part of rasterize_mesh that is compiled for each instruction set.
#pragma once
#include <cstdint>

#include "math/mesh.h"

namespace gaf::cpu {

constexpr int kMeshLanes = 8;  // at most so many pixels are drawn at once; rows of the buffers are multiples of it

struct MeshBand {
  const ScreenTriangle* triangles;
  const int32_t* list;  // [n] places in `triangles`, ascending
  int64_t n;
  int y0, y1;  // rows
  int64_t stride;
  double max_inverse_depth;  // of the near plane
  double* inverse_depth;     // [y1 - y0, stride] 0 where nothing is drawn yet
  double* place;             // [y1 - y0, stride] of the triangle drawn; a double, so that both buffers have lanes of one width
};

namespace baseline {
void draw_mesh_band(const MeshBand&);
}
namespace avx2 {
void draw_mesh_band(const MeshBand&);
}
namespace avx512 {
void draw_mesh_band(const MeshBand&);
}

}  // namespace gaf::cpu
