// Forward of rasterize_mesh: a thread sets up each triangle, warps test its pixels and keep the nearest by an atomic maximum, a thread a pixel
// writes the result. Coverage and depth are in double, as on the CPU: a pixel's result must not depend on a triangle's size.
#include "device/launch.h"
#include "device/reduce.h"
#include "math/mesh.h"
#include "ops/rasterize_mesh.h"

namespace gaf::cuda {
namespace {

using MeshArgs = RasterizeMeshArgs<float>;
using Key = unsigned long long;

// What competes for a pixel: the nearer wins, of equal depths the lower face. The upper 40 bits hold 1 / depth without its sign, to 2^-29; so
// surfaces nearer to each other than that (2 nm at a metre) count as equal. The maximum does not depend on who comes first.
constexpr int kFaceBits = 24;
constexpr Key kFaceMask = (Key(1) << kFaceBits) - 1;

__device__ __forceinline__ Key pixel_key(double inverse_depth, int face) {
  Key bits;
  memcpy(&bits, &inverse_depth, sizeof bits);
  return (bits << 1 & ~kFaceMask) | (kFaceMask - Key(face));
}
__device__ __forceinline__ int face_of(Key key) { return int(kFaceMask - (key & kFaceMask)); }

constexpr int kChunkPixels = 256;  // of a triangle's box, to one warp
constexpr int kSlices = 8;         // warps that share a large triangle

// A triangle that is not drawn has an empty box.
__global__ void __launch_bounds__(kThreads) mesh_setup_kernel(MeshArgs a, ScreenTriangle* triangles) {
  const int64_t t = thread_index();
  if (t >= a.n_cameras * a.n_faces) return;
  const int64_t c = t / a.n_faces, face = t - c * a.n_faces;
  const Pinhole camera = load_pinhole(a.viewmats + 16 * c, a.Ks + 9 * c);
  const float* mesh = a.vertices + (a.n_meshes == 1 ? 0 : c) * a.n_vertices * 3;
  const int64_t* f = a.faces + 3 * face;
  const Vec3<double> p[3] = {to_camera(camera, load3(mesh, f[0])), to_camera(camera, load3(mesh, f[1])), to_camera(camera, load3(mesh, f[2]))};
  ScreenTriangle out{};
  if (!screen_triangle(camera, p, a.near_plane, a.width, a.height, out)) out.box = {0, 0, 0, 0};
  out.face = int(face);
  triangles[t] = out;
}

// keys: [C, H, W], 0 where nothing is drawn yet. Warp (triangle, slice) takes every kSlices-th chunk of the triangle's box.
__global__ void __launch_bounds__(kThreads) mesh_draw_kernel(MeshArgs a, const ScreenTriangle* triangles, Key* keys) {
  const int64_t t = thread_index() / kWarp;
  if (t >= a.n_cameras * a.n_faces) return;
  const PixelBox box = triangles[t].box;
  const int width = box.x1 - box.x0;
  const int64_t n = int64_t(width) * (box.y1 - box.y0);
  int64_t begin = int64_t(blockIdx.y) * kChunkPixels;
  if (begin >= n) return;
  const ScreenTriangle triangle = triangles[t];
  const double max_inverse_depth = 1 / a.near_plane;
  Key* image = keys + t / a.n_faces * a.width * a.height;
  bool owns[3];
  for (int i = 0; i < 3; ++i) owns[i] = owns_edge(triangle.edges[i]);
  for (; begin < n; begin += int64_t(kSlices) * kChunkPixels) {
    const int64_t end = min(begin + kChunkPixels, n);
    for (int64_t i = begin + lane_index(); i < end; i += kWarp) {
      const int y = box.y0 + int(i / width), x = box.x0 + int(i % width);
      bool covered = true;
      for (int e = 0; e < 3; ++e) {
        const double value = plane_at(triangle.edges[e], x + 0.5, y + 0.5);
        covered &= value > 0 || (value == 0 && owns[e]);
      }
      const double w = plane_at(triangle.inverse_depth, x + 0.5, y + 0.5);
      if (covered && w > 0 && w <= max_inverse_depth) atomicMax(image + int64_t(y) * a.width + x, pixel_key(w, triangle.face));
    }
  }
}

__global__ void __launch_bounds__(kThreads) mesh_resolve_kernel(MeshArgs a, const ScreenTriangle* triangles, const Key* keys) {
  const int64_t pixel = thread_index(), n_pixels = int64_t(a.width) * a.height;
  if (pixel >= a.n_cameras * n_pixels) return;
  const Key key = keys[pixel];
  if (key == 0) {
    a.triangle_ids[pixel] = -1;
    store3(a.barycentrics, pixel, {0, 0, 0});
    a.depth[pixel] = 0;
    return;
  }
  const int64_t c = pixel / n_pixels, p = pixel - c * n_pixels;
  const double x = double(p % a.width) + 0.5, y = double(p / a.width) + 0.5;
  const ScreenTriangle& t = triangles[c * a.n_faces + face_of(key)];
  const double e0 = plane_at(t.edges[0], x, y), e1 = plane_at(t.edges[1], x, y), e2 = plane_at(t.edges[2], x, y);
  const double sum = e0 + e1 + e2, s = 1 / sum;
  a.triangle_ids[pixel] = t.face;
  // All three are zero only where rounding has eaten a triangle that is all but a point; any corner is right then.
  store3(a.barycentrics, pixel, sum > 0 ? Vec3<float>{float(e0 * s), float(e1 * s), float(e2 * s)} : Vec3<float>{1, 0, 0});
  a.depth[pixel] = float(1 / plane_at(t.inverse_depth, x, y));
}

}  // namespace

void rasterize_mesh_fwd(const MeshArgs& a, Stream stream) {
  const char* name = "rasterize_mesh_fwd";
  if (a.n_faces > int64_t(kFaceMask)) {
    throw std::runtime_error(std::string(name) + ": " + std::to_string(a.n_faces) + " faces, at most " + std::to_string(kFaceMask));
  }
  const int64_t n_triangles = a.n_cameras * a.n_faces, n_pixels = a.n_cameras * a.width * int64_t(a.height);
  if (n_pixels == 0) return;
  ScreenTriangle* triangles = stream.scratch<ScreenTriangle>(n_triangles);
  Key* keys = stream.scratch<Key>(n_pixels);
  fill_bytes(name, keys, 0, size_t(n_pixels) * sizeof(Key), stream);
  launch(name, mesh_setup_kernel, blocks_for(n_triangles), kThreads, 0, stream, a, triangles);
  const dim3 blocks = blocks_for(kWarp * n_triangles);
  launch(name, mesh_draw_kernel, dim3(blocks.x, kSlices), kThreads, 0, stream, a, triangles, keys);
  launch(name, mesh_resolve_kernel, blocks_for(n_pixels), kThreads, 0, stream, a, triangles, keys);
}

}  // namespace gaf::cuda
