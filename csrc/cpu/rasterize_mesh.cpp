// Forward: vertices to the camera, triangles to pixel planes, triangles to bands of rows, then a z-buffer a band. A band walks its triangles in
// ascending order and keeps the first of equal depth, so the result does not depend on who runs it.
#include "ops/rasterize_mesh.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "isa.h"
#include "math/mesh.h"
#include "mesh_band.h"
#include "parallel.h"

namespace gaf::cpu {
namespace {

constexpr int64_t kVertexGrain = 4096;
constexpr int64_t kFacesPerChunk = 2048;
constexpr int kBandRows = 16;  // z-buffer of a 1024 pixel wide band: 264 KB

// The scratch memory of one camera's image.
struct Scene {
  std::vector<Vec3<double>> vertices;           // [V] camera space
  std::unique_ptr<ScreenTriangle[]> triangles;  // [F]; chunk i of the faces fills its first kept[i] places, in order
  std::vector<int64_t> kept;                    // [chunks]
  std::vector<int64_t> cursor;                  // [bands, chunks] where the chunk's next entry of the band's list goes
  std::vector<int64_t> band_begin;              // [bands + 1]
  std::vector<int32_t> list;                    // places in `triangles`, band by band, ascending
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T>
const T* mesh_of(const RasterizeMeshArgs<T>& a, int64_t c) {
  return a.vertices + (a.n_meshes == 1 ? 0 : c) * a.n_vertices * 3;
}

template <class T>
void transform(const RasterizeMeshArgs<T>& a, int64_t c, const Pinhole& camera, std::vector<Vec3<double>>& out, int threads) {
  const T* mesh = mesh_of(a, c);
  parallel_for(a.n_vertices, kVertexGrain, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t v = begin; v < end; ++v) out[v] = to_camera(camera, load3(mesh, v));
  });
}

// Fills triangles, kept and list.
template <class T>
void bin(const RasterizeMeshArgs<T>& a, const Pinhole& camera, Scene& s, int threads) {
  const int64_t chunks = int64_t(s.kept.size()), bands = int64_t(s.band_begin.size()) - 1;
  std::fill(s.cursor.begin(), s.cursor.end(), 0);
  parallel_for(chunks, 1, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk * kFacesPerChunk, last = std::min(first + kFacesPerChunk, a.n_faces);
      ScreenTriangle* out = s.triangles.get() + first;
      for (int64_t f = first; f < last; ++f) {
        const int64_t* i = a.faces + 3 * f;
        const Vec3<double> p[3] = {s.vertices[i[0]], s.vertices[i[1]], s.vertices[i[2]]};
        if (!screen_triangle(camera, p, a.near_plane, a.width, a.height, *out)) continue;
        out->face = int(f);
        for (int b = out->box.y0 / kBandRows; b <= (out->box.y1 - 1) / kBandRows; ++b) ++s.cursor[b * chunks + chunk];
        ++out;
      }
      s.kept[chunk] = out - (s.triangles.get() + first);
    }
  });
  int64_t total = 0;
  for (int64_t b = 0; b < bands; ++b) {
    s.band_begin[b] = total;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t count = s.cursor[b * chunks + chunk];
      s.cursor[b * chunks + chunk] = total;
      total += count;
    }
  }
  s.band_begin[bands] = total;
  s.list.resize(total);
  parallel_for(chunks, 1, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk * kFacesPerChunk;
      for (int64_t i = first; i < first + s.kept[chunk]; ++i) {
        const PixelBox& box = s.triangles[i].box;
        for (int b = box.y0 / kBandRows; b <= (box.y1 - 1) / kBandRows; ++b) s.list[s.cursor[b * chunks + chunk]++] = int32_t(i);
      }
    }
  });
}

template <class T>
void write_pixel(const RasterizeMeshArgs<T>& a, int64_t pixel, const ScreenTriangle& t, double x, double y, double inverse_depth) {
  const double e0 = plane_at(t.edges[0], x, y), e1 = plane_at(t.edges[1], x, y), e2 = plane_at(t.edges[2], x, y);
  const double sum = e0 + e1 + e2, s = 1 / sum;
  a.triangle_ids[pixel] = t.face;
  // All three are zero only where rounding has eaten a triangle that is all but a point; any corner is right then.
  store3(a.barycentrics, pixel, sum > 0 ? Vec3<T>{T(e0 * s), T(e1 * s), T(e2 * s)} : Vec3<T>{1, 0, 0});
  a.depth[pixel] = T(1 / inverse_depth);
}

// The nearest triangle so far at each pixel of a band.
struct BandBuffer {
  std::vector<double> inverse_depth, place;  // [rows, stride]
};

template <class T>
void draw_band(const RasterizeMeshArgs<T>& a, int64_t c, int64_t band, const Scene& s, BandBuffer& buffer) {
  const int y0 = int(band) * kBandRows, y1 = std::min(y0 + kBandRows, a.height);
  const int64_t stride = ceil_div(a.width, kMeshLanes) * kMeshLanes, first = s.band_begin[band];
  buffer.inverse_depth.assign(kBandRows * stride, 0.0);
  buffer.place.resize(kBandRows * stride);
  GAF_DISPATCH(draw_mesh_band)
  ({s.triangles.get(), s.list.data() + first, s.band_begin[band + 1] - first, y0, y1, stride, 1 / a.near_plane, buffer.inverse_depth.data(),
    buffer.place.data()});
  for (int y = y0; y < y1; ++y) {
    const double *inverse_depth = buffer.inverse_depth.data() + (y - y0) * stride, *place = buffer.place.data() + (y - y0) * stride;
    for (int x = 0; x < a.width; ++x) {
      const int64_t pixel = (c * a.height + y) * a.width + x;
      if (inverse_depth[x] > 0) {
        write_pixel(a, pixel, s.triangles[int64_t(place[x])], x + 0.5, y + 0.5, inverse_depth[x]);
      } else {
        a.triangle_ids[pixel] = -1;
        store3(a.barycentrics, pixel, {0, 0, 0});
        a.depth[pixel] = 0;
      }
    }
  }
}

}  // namespace

template <class T>
void rasterize_mesh_fwd(const RasterizeMeshArgs<T>& a, int threads) {
  if (a.n_cameras == 0 || a.width == 0 || a.height == 0) return;
  const int64_t chunks = ceil_div(a.n_faces, kFacesPerChunk), bands = ceil_div(a.height, kBandRows);
  Scene s;
  s.vertices.resize(a.n_vertices);
  s.triangles.reset(new ScreenTriangle[a.n_faces]);
  s.kept.resize(chunks);
  s.cursor.resize(bands * chunks);
  s.band_begin.resize(bands + 1);
  std::vector<BandBuffer> buffers(std::max(threads, 1));
  for (int64_t c = 0; c < a.n_cameras; ++c) {
    const Pinhole camera = load_pinhole(a.viewmats + 16 * c, a.Ks + 9 * c);
    transform(a, c, camera, s.vertices, threads);
    bin(a, camera, s, threads);
    parallel_for(bands, 1, threads, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t band = begin; band < end; ++band) draw_band(a, c, band, s, buffers[worker]);
    });
  }
}

template void rasterize_mesh_fwd(const RasterizeMeshArgs<float>&, int);
template void rasterize_mesh_fwd(const RasterizeMeshArgs<double>&, int);

}  // namespace gaf::cpu
