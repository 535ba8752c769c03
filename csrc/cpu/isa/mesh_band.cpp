// Triangles of a head cover a few pixels each, so a branch on a pixel is a guess: several are tested at once and merged by selection.
// Testing beyond the triangle's box is harmless, because coverage is decided by its edges.
#include "cpu/mesh_band.h"

#include <cfloat>

namespace gaf::cpu::GAF_ISA {
namespace {

#define GAF_INLINE __attribute__((always_inline)) inline

#if defined(__AVX512F__)
constexpr int kLanes = 8;
#elif defined(__AVX__)
constexpr int kLanes = 4;
#else
constexpr int kLanes = 2;
#endif
static_assert(kMeshLanes % kLanes == 0);
using Lanes = double __attribute__((vector_size(8 * kLanes)));

GAF_INLINE Lanes centres(int x) {
  Lanes c;
  for (int k = 0; k < kLanes; ++k) c[k] = k + 0.5;
  return c + double(x);
}

// Narrows [x0, x1) to where plane >= 0 along a row; `row` is the plane's value at x = 0, `inverse` is 1 / plane.x. Conservative.
GAF_INLINE void clip_row(const Vec3<double>& plane, double inverse, double row, double y, int& x0, int& x1) {
  if (plane.x == 0) {
    if (row < 0) x1 = x0;
    return;
  }
  const double zero = -row * inverse;
  const double margin = 1 + 1e-14 * (std::fabs(plane.y) * y + std::fabs(plane.z)) * std::fabs(inverse);
  if (plane.x > 0) {
    if (!(zero - margin < x1)) {
      x1 = x0;
    } else if (zero - margin > x0) {
      x0 = int(zero - margin);
    }
  } else if (!(zero + margin > x0)) {
    x1 = x0;
  } else if (zero + margin < x1) {
    x1 = int(zero + margin);
  }
}

struct Triangle {
  const ScreenTriangle& t;
  double bound[3];    // an edge's value must be greater: 0, or the largest number below it where pixels on the edge are the triangle's
  double inverse[3];  // 1 / edge.x, of triangles wide enough to clip
  bool wide;

  GAF_INLINE explicit Triangle(const ScreenTriangle& t) : t(t), wide(t.box.x1 - t.box.x0 > 2 * kLanes) {
    for (int i = 0; i < 3; ++i) bound[i] = owns_edge(t.edges[i]) ? -DBL_MIN : 0;
    if (!wide) return;
    for (int i = 0; i < 3; ++i) inverse[i] = 1 / t.edges[i].x;
  }

  // Pixels x to x + kLanes of a row. Nearer wins; of equal depths the one drawn first, which has the lower number.
  GAF_INLINE void draw_lanes(int x, const double* row, double row_depth, double max_inverse_depth, double place, double* nearest,
                             double* places) const {
    const Lanes xc = centres(x);
    const Lanes e0 = t.edges[0].x * xc + row[0], e1 = t.edges[1].x * xc + row[1], e2 = t.edges[2].x * xc + row[2];
    const Lanes w = t.inverse_depth.x * xc + row_depth;
    Lanes old_w, old_place;
    __builtin_memcpy(&old_w, nearest, sizeof(Lanes));
    __builtin_memcpy(&old_place, places, sizeof(Lanes));
    const auto drawn = (e0 > bound[0]) & (e1 > bound[1]) & (e2 > bound[2]) & (w > old_w) & (w <= max_inverse_depth);
    const Lanes new_w = drawn ? w : old_w, new_place = drawn ? place + Lanes{} : old_place;
    __builtin_memcpy(nearest, &new_w, sizeof(Lanes));
    __builtin_memcpy(places, &new_place, sizeof(Lanes));
  }

  GAF_INLINE void draw(const MeshBand& band, double place) const {
    const int y0 = t.box.y0 > band.y0 ? t.box.y0 : band.y0, y1 = t.box.y1 < band.y1 ? t.box.y1 : band.y1;
    for (int y = y0; y < y1; ++y) {
      const double yc = y + 0.5, row_depth = t.inverse_depth.y * yc + t.inverse_depth.z;
      const double row[3] = {t.edges[0].y * yc + t.edges[0].z, t.edges[1].y * yc + t.edges[1].z, t.edges[2].y * yc + t.edges[2].z};
      int x0 = t.box.x0, x1 = t.box.x1;
      if (wide) {
        for (int i = 0; i < 3; ++i) clip_row(t.edges[i], inverse[i], row[i], yc, x0, x1);
      }
      double *nearest = band.inverse_depth + (y - band.y0) * band.stride, *places = band.place + (y - band.y0) * band.stride;
      // From a multiple of the lanes: reads then match the writes of the triangle before, and the processor can hand them over.
      for (int x = x0 / kLanes * kLanes; x < x1; x += kLanes) {
        draw_lanes(x, row, row_depth, band.max_inverse_depth, place, nearest + x, places + x);
      }
    }
  }
};

}  // namespace

void draw_mesh_band(const MeshBand& band) {
  for (int64_t i = 0; i < band.n; ++i) Triangle(band.triangles[band.list[i]]).draw(band, double(band.list[i]));
}

}  // namespace gaf::cpu::GAF_ISA
