// What the blending loops of both directions share: the geometry of a tile and a splat brought into a tile's coordinates.
#pragma once
#include "cpu/rasterization.h"
#include "cpu/simd.h"
#include "math/blend.h"

namespace gaf::cpu::GAF_ISA {

constexpr int kTileBlockCount = kTileBlocks * kTileBlocks;

// The slots of a splat follow each other from first_slot on, so the low bits tell which one is meant.
template <class S>
GAF_HD int64_t slot_of(const TileBlend<S>& b, const Pair& pair) {
  if (!b.wide_slots) return pair.slot;
  const int64_t first = b.first_slot[pair.splat];
  return first + int64_t(pair.slot - uint32_t(first));
}

template <class S>
struct TilePlace {
  int64_t camera;
  int x0, y0;            // first pixel
  int columns, rows;     // pixels inside the image
  uint64_t blocks_inside;  // blocks with a pixel inside the image

  TilePlace(const TileGrid& grid, int64_t tile) {
    camera = tile / grid.n_tiles;
    const int t = int(tile % grid.n_tiles);
    x0 = t % grid.tiles_x * kTile;
    y0 = t / grid.tiles_x * kTile;
    columns = grid.width - x0 < kTile ? grid.width - x0 : kTile;
    rows = grid.height - y0 < kTile ? grid.height - y0 : kTile;
    const int across = (columns + kBlock - 1) / kBlock, down = (rows + kBlock - 1) / kBlock;
    blocks_inside = 0;
    for (int r = 0; r < down; ++r) blocks_inside |= uint64_t(0xff >> (8 - across)) << (8 * r);
  }
};

// Pixel centres of a block, from the tile's corner.
template <class S>
struct BlockPixels {
  Lanes<S> x, y;
};

template <class S>
GAF_HD BlockPixels<S> block_pixels(int block) {
  S x[kLanes], y[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    x[i] = S(block % kTileBlocks * kBlock + i % kBlock) + S(0.5);
    y[i] = S(block / kTileBlocks * kBlock + i / kBlock) + S(0.5);
  }
  return {Lanes<S>::load(x), Lanes<S>::load(y)};
}

// For pixels counted from the tile's corner: numbers stay small there, so nothing cancels.
template <class S>
struct alignas(16 * sizeof(S)) TileSplat {
  S u_x, u_y, u_0, v_y, v_0, log2_opacity;
  S color[kSplatChannels];
};

template <class S>
GAF_HD TileSplat<S> tile_splat(const Splat<S>& s, S x0, S y0) {
  const WhitenedOrigin<S> o = whitened_origin(Whitening<S>{s.u_x, s.u_y, s.v_y}, s.x - x0, s.y - y0);
  return {s.u_x, s.u_y, o.u_0, s.v_y, o.v_0, s.log2_opacity, {s.color[0], s.color[1], s.color[2], s.color[3]}};
}

// The splat's colours in the channels of this pass.
template <class S>
GAF_HD void load_colors(const TileBlend<S>& b, uint32_t splat, int64_t camera, TileSplat<S>& out) {
  if (!b.args->features) return;
  const int64_t gaussian = int64_t(splat) - camera * b.grid.rows_per_camera;
  const S* f = b.args->features + (camera * b.args->n_gaussians + gaussian) * b.args->n_channels + b.first_channel;
  for (int c = 0; c < kSplatChannels; ++c) out.color[c] = c < b.n_channels ? f[c] : S(0);
}

template <class S>
GAF_HD Lanes<S> splat_power(const TileSplat<S>& s, const BlockPixels<S>& p, Lanes<S>& u, Lanes<S>& v) {
  using V = Lanes<S>;
  return log2_alpha(Whitening<V>{V(s.u_x), V(s.u_y), V(s.v_y)}, WhitenedOrigin<V>{V(s.u_0), V(s.v_0)}, V(s.log2_opacity), p.x, p.y, u, v);
}

}  // namespace gaf::cpu::GAF_ISA
