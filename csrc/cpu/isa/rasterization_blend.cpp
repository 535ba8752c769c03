// One tile, front to back. Pairs are taken in chunks; a chunk is turned into a list of splats for each 4x4 block, and a block walks its list
// with its sixteen pixels in registers until all of them are opaque.
#include "rasterization_blend.h"

namespace gaf::cpu::GAF_ISA {
namespace {

constexpr int kChunk = 128;      // pairs; splats, lists and pixels of a tile stay in the first-level cache
constexpr int kCheckEvery = 16;  // splats between two looks at the transmittance

template <class S, int C>
struct TilePixels {
  Lanes<S> transmittance[kTileBlockCount];
  Lanes<S> sum[C][kTileBlockCount];
};

template <class S>
struct Chunk {
  TileSplat<S> splats[kChunk];
  uint64_t blocks[kChunk];
  uint8_t list[kTileBlockCount][kChunk];
  int length[kTileBlockCount];
};

// Pixels outside the image start opaque, so that they never keep a block alive.
template <class S, int C>
void clear(const TilePlace<S>& place, TilePixels<S, C>& pixels) {
  using V = Lanes<S>;
  const V columns = V(S(place.columns)), rows = V(S(place.rows));
  for (int b = 0; b < kTileBlockCount; ++b) {
    const BlockPixels<S> p = block_pixels<S>(b);
    pixels.transmittance[b] = select_((p.x < columns) & (p.y < rows), V(1), V(0));
    for (int c = 0; c < C; ++c) pixels.sum[c][b] = V(0);
  }
}

template <class S>
void fill_chunk(const TileBlend<S>& b, const TilePlace<S>& place, const Pair* pairs, int64_t left, uint64_t alive, Chunk<S>& chunk) {
  const int n = int(left < kChunk ? left : kChunk);
  const Splat<S>* splats = reinterpret_cast<const Splat<S>*>(b.args->splats);
  for (int i = 0; i < kTileBlockCount; ++i) chunk.length[i] = 0;
  for (int i = 0; i < n; ++i) {
    __builtin_prefetch(splats + pairs[i + kChunk < left ? i + kChunk : i].splat);  // of the next chunk, while this one is blended
    const Pair& pair = pairs[i];
    chunk.splats[i] = tile_splat(splats[pair.splat], S(place.x0), S(place.y0));
    load_colors(b, pair.splat, place.camera, chunk.splats[i]);
    const uint64_t blocks = pair.blocks & alive;
    chunk.blocks[i] = blocks;
    for (uint64_t todo = blocks; todo; todo &= todo - 1) {
      const int block = __builtin_ctzll(todo);
      chunk.list[block][chunk.length[block]++] = uint8_t(i);
    }
  }
}

// Walks one block's list and returns how many splats of it were blended before the block was opaque (all of them: -1 if it still is not).
template <class S, int C>
int blend_block(const Chunk<S>& chunk, int block, TilePixels<S, C>& pixels) {
  using V = Lanes<S>;
  const BlockPixels<S> p = block_pixels<S>(block);
  V transmittance = pixels.transmittance[block], sum[C];
  for (int c = 0; c < C; ++c) sum[c] = pixels.sum[c][block];
  const uint8_t* list = chunk.list[block];
  const int n = chunk.length[block];
  int i = 0;
  bool opaque = false;
  while (i < n && !opaque) {
    const int stop = i + kCheckEvery < n ? i + kCheckEvery : n;
    for (; i < stop; ++i) {
      const TileSplat<S>& s = chunk.splats[list[i]];
      V u, v;
      const V weight = blend_weight(splat_power(s, p, u, v), transmittance);
      transmittance = transmittance - weight;
      for (int c = 0; c < C; ++c) sum[c] = fma_(weight, V(s.color[c]), sum[c]);
    }
    opaque = !(transmittance >= V(kTransmittanceMin)).bits();
  }
  pixels.transmittance[block] = transmittance;
  for (int c = 0; c < C; ++c) pixels.sum[c][block] = sum[c];
  return opaque ? i : -1;
}

template <class S, int C>
void write_tile(const TileBlend<S>& b, const TilePlace<S>& place, const TilePixels<S, C>& pixels) {
  const RasterizationBlendArgs<S>& a = *b.args;
  const S* background = a.backgrounds ? a.backgrounds + place.camera * a.n_channels + b.first_channel : nullptr;
  const int64_t origin = (place.camera * a.height + place.y0) * a.width + place.x0;
  for (int block = 0; block < kTileBlockCount; ++block) {
    if (!(place.blocks_inside >> block & 1)) continue;
    S left[kLanes], value[C][kLanes];
    pixels.transmittance[block].store(left);
    for (int c = 0; c < C; ++c) {
      Lanes<S> x = pixels.sum[c][block];
      if (background) x = fma_(pixels.transmittance[block], Lanes<S>(background[c]), x);
      x.store(value[c]);
    }
    const int bx = block % kTileBlocks * kBlock, by = block / kTileBlocks * kBlock;
    const int rows = place.rows - by < kBlock ? place.rows - by : kBlock;
    const int columns = place.columns - bx < kBlock ? place.columns - bx : kBlock;
    for (int r = 0; r < rows; ++r) {
      const int64_t row = origin + int64_t(by + r) * a.width + bx;
      S* out = a.render + row * a.n_channels + b.first_channel;
      if (a.n_channels == C && columns == kBlock) {  // the usual case, with sizes known to the compiler
        for (int i = 0; i < kBlock; ++i) {
          for (int c = 0; c < C; ++c) out[i * C + c] = value[c][kBlock * r + i];
        }
      } else {
        for (int i = 0; i < columns; ++i) {
          for (int c = 0; c < C; ++c) out[i * a.n_channels + c] = value[c][kBlock * r + i];
        }
      }
      if (b.first_channel > 0) continue;
      for (int i = 0; i < columns; ++i) a.alphas[row + i] = 1 - left[kBlock * r + i];
    }
  }
}

template <class S, int C>
void blend_channels(const TileBlend<S>& b, int64_t tile) {
  const TilePlace<S> place(b.grid, tile);
  alignas(64) TilePixels<S, C> pixels;
  clear(place, pixels);
  alignas(64) Chunk<S> chunk;
  uint64_t alive = place.blocks_inside;
  int64_t at = b.tile_begin[tile];
  const int64_t end = b.tile_begin[tile + 1];
  while (at < end && alive) {
    const int n = int(end - at < kChunk ? end - at : kChunk);
    fill_chunk(b, place, b.pairs + at, end - at, alive, chunk);
    for (uint64_t todo = alive; todo; todo &= todo - 1) {
      const int block = __builtin_ctzll(todo);
      if (!chunk.length[block]) continue;
      const int walked = blend_block<S, C>(chunk, block, pixels);
      if (walked < 0) continue;
      alive &= ~(uint64_t(1) << block);
      for (int i = walked; i < chunk.length[block]; ++i) chunk.blocks[chunk.list[block][i]] &= ~(uint64_t(1) << block);
    }
    for (int i = 0; i < n; ++i) b.pairs[at + i].blocks = chunk.blocks[i];
    at += n;
  }
  b.tile_walked[tile] = at - b.tile_begin[tile];
  write_tile(b, place, pixels);
}

}  // namespace

template <class S>
void blend_tile(const TileBlend<S>& b, int64_t tile) {
  switch (b.n_channels) {
    case 1: return blend_channels<S, 1>(b, tile);
    case 2: return blend_channels<S, 2>(b, tile);
    case 3: return blend_channels<S, 3>(b, tile);
    default: return blend_channels<S, 4>(b, tile);
  }
}

template void blend_tile(const TileBlend<Number>&, int64_t);

}  // namespace gaf::cpu::GAF_ISA
