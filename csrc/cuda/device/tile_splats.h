// A tile, the list of splats that its pixels walk, and splats brought into its coordinates.
#pragma once
#include "cuda/rasterization.h"
#include "math/ellipse.h"
#include "reduce.h"

namespace gaf::cuda {

struct TilePlace {
  int64_t tile;
  int camera;
  int x0, y0;  // first pixel

  __device__ __forceinline__ TilePlace(const TileGrid& grid, int64_t number) : tile(number) {
    camera = int(tile / grid.n_tiles);
    const int t = int(tile % grid.n_tiles);
    x0 = t % grid.tiles_x * kTile;
    y0 = t / grid.tiles_x * kTile;
  }
};

// This thread's pixel: a warp has 8x4 of them, the warps of a tile lie two by four.
struct ThreadPixel {
  int x, y;  // in the tile
  bool inside;
  int64_t number;  // of the pixel, cameras included

  __device__ __forceinline__ ThreadPixel(const TileGrid& grid, const TilePlace& place) {
    x = warp_index() % kSubtilesAcross * kSubtileX + lane_index() % kSubtileX;
    y = warp_index() / kSubtilesAcross * kSubtileY + lane_index() / kSubtileX;
    inside = place.x0 + x < grid.width && place.y0 + y < grid.height;
    number = (int64_t(place.camera) * grid.height + place.y0 + y) * grid.width + place.x0 + x;
  }
};

// Nearest first. A frame with too many pairs has none: then a tile walks all of its camera's, and what does not touch it has an empty mask.
struct TileList {
  const uint32_t* rows;
  uint32_t begin, end;
  bool whole;

  __device__ __forceinline__ TileList(const Pairs& pairs, int64_t tile) : whole(too_many(pairs)) {
    const uint2 range = pairs.tile_range[tile];
    rows = whole ? pairs.order : pairs.rows;
    begin = range.x;
    end = range.y;
  }
};

// For pixels counted from the tile's corner.
struct TileSplat {
  float4 shape;       // u_x, u_y, v_y, log2 opacity
  float2 origin;      // u_0, v_0
  float4 color;
  unsigned subtiles;  // bit w: the ellipse meets pixel centres of warp w
};

__device__ __forceinline__ unsigned subtiles_of(const Ellipse<float>& e) {
  unsigned mask = 0;
#pragma unroll
  for (int r = 0; r < kTile / kSubtileY; ++r) {
    const float top = float(r * kSubtileY) + 0.5f - e.y;
    const EllipseSpan<float> s = ellipse_in_slab(e, top, top + float(kSubtileY - 1));
    if (!(s.top <= s.bottom + float(kEllipseSlack))) continue;
#pragma unroll
    for (int c = 0; c < kSubtilesAcross; ++c) {
      const float first = float(c * kSubtileX) + 0.5f;
      if (s.left <= first + float(kSubtileX - 1) && s.right >= first) mask |= 1u << (r * kSubtilesAcross + c);
    }
  }
  return mask;
}

__device__ __forceinline__ TileSplat load_tile_splat(const BlendPass& p, const TilePlace& place, uint32_t row) {
  const float4* fields = reinterpret_cast<const float4*>(p.args.splats) + 4 * int64_t(row);
  const float4 f0 = fields[0], f1 = fields[1];  // x, y, u_x, u_y; v_y, log2 opacity, two colours
  const Whitening<float> w = {f0.z, f0.w, f1.x};
  const float x = f0.x - float(place.x0), y = f0.y - float(place.y0);
  const WhitenedOrigin<float> o = whitened_origin(w, x, y);
  TileSplat s;
  s.shape = make_float4(w.u_x, w.u_y, w.v_y, f1.y);
  s.origin = make_float2(o.u_0, o.v_0);
  s.subtiles = subtiles_of(ellipse_of(x, y, w, f1.y));
  s.color = make_float4(f1.z, f1.w, 0, 0);
  if (!p.args.features) {
    const float2 f2 = reinterpret_cast<const float2*>(fields)[4];
    s.color.z = f2.x;
    s.color.w = f2.y;
  } else {
    const int64_t gaussian = int64_t(row) - int64_t(place.camera) * p.grid.rows_per_camera;
    const float* f = p.args.features + (place.camera * p.args.n_gaussians + gaussian) * p.args.n_channels + p.first_channel;
    s.color.x = f[0];
    s.color.y = p.n_channels > 1 ? f[1] : 0.f;
    s.color.z = p.n_channels > 2 ? f[2] : 0.f;
    s.color.w = p.n_channels > 3 ? f[3] : 0.f;
  }
  return s;
}

constexpr int kTogether = 4;  // splats that a pixel looks at before they take their turns

// In shared memory: 48 bytes, of which a pixel of RGB reads 16, 16 and 4.
struct StagedSplat {
  float4 shape;
  float4 origin_colors;  // origin; two colours
  float2 more_colors;
  uint32_t target, entries;  // backward's: where a pair's sums go, and which it has meanwhile

  // Where c is a constant after unrolling.
  __device__ __forceinline__ float color(int c) const {
    return c == 0 ? origin_colors.z : c == 1 ? origin_colors.w : c == 2 ? more_colors.x : more_colors.y;
  }
};

__device__ __forceinline__ StagedSplat staged(const TileSplat& s, uint32_t target = 0) {
  return {s.shape, make_float4(s.origin.x, s.origin.y, s.color.x, s.color.y), make_float2(s.color.z, s.color.w), target, 0};
}

// One that no pixel sees: it fills up lists, so that whoever walks several splats together need not ask how many there are.
__device__ __forceinline__ StagedSplat unseen_splat() {
  return {make_float4(0, 0, 0, -1e30f), make_float4(0, 0, 0, 0), make_float2(0, 0), 0, 0};
}

// Channel c of four, where c is a constant after unrolling.
__device__ __forceinline__ float component(const float4& v, int c) { return c == 0 ? v.x : c == 1 ? v.y : c == 2 ? v.z : v.w; }

// log2(alpha) at a pixel centre, given from the tile's corner.
__device__ __forceinline__ float splat_power(const float4& shape, const float2& origin, float x, float y, float& u, float& v) {
  return log2_alpha(Whitening<float>{shape.x, shape.y, shape.z}, WhitenedOrigin<float>{origin.x, origin.y}, shape.w, x, y, u, v);
}

__device__ __forceinline__ float splat_power(const StagedSplat& s, float x, float y, float& u, float& v) {
  const float4 shape = s.shape, origin = s.origin_colors;  // whole, for loads of 16 bytes
  return splat_power(shape, make_float2(origin.x, origin.y), x, y, u, v);
}

}  // namespace gaf::cuda
