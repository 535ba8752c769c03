// The way back through one tile, again front to back: a pixel's `rest` starts as (final colour . v_colour) and what each splat added is taken
// off it, which leaves what lies behind. A pair's sums over its blocks stay in registers and are written once.
#include "rasterization_blend.h"
#include "transpose.h"

namespace gaf::cpu::GAF_ISA {
namespace {

constexpr int kAhead = 12;   // pairs between asking for a row of memory and using it
constexpr int kMoments = 6;  // then the colours, then with absgrad two more
constexpr int kAbs = kMoments + kSplatChannels;

// The part of a block that lies in the image.
struct BlockView {
  int x, y, columns, rows;  // corner in the tile; pixels

  template <class S>
  GAF_HD BlockView(const TilePlace<S>& place, int block) : x(block % kTileBlocks * kBlock), y(block / kTileBlocks * kBlock) {
    columns = place.columns - x < kBlock ? place.columns - x : kBlock;
    rows = place.rows - y < kBlock ? place.rows - y : kBlock;
  }
};

// p[row * row_stride + column * stride] for the pixels of a block that exist (`value` where p is null), 0 for the others.
template <class S>
GAF_HD Lanes<S> load_block(const BlockView& b, S value, const S* p, int64_t row_stride, int64_t stride) {
  S lane[kLanes] = {};
  if (p && b.columns == kBlock && b.rows == kBlock) {
    for (int r = 0; r < kBlock; ++r) {
      for (int i = 0; i < kBlock; ++i) lane[kBlock * r + i] = p[r * row_stride + i * stride];
    }
  } else {
    for (int r = 0; r < b.rows; ++r) {
      for (int i = 0; i < b.columns; ++i) lane[kBlock * r + i] = p ? p[r * row_stride + i * stride] : value;
    }
  }
  return Lanes<S>::load(lane);
}

template <class S, int C>
struct TileGrads {
  Lanes<S> transmittance[kTileBlockCount], rest[kTileBlockCount];
  Lanes<S> v_color[C][kTileBlockCount];
};

// Pixels outside the image have no light and no gradient. Also writes the tile's share of the background's gradient.
template <class S, int C>
void load_tile(const TileBlend<S>& b, int64_t tile, const TilePlace<S>& place, TileGrads<S, C>& g) {
  using V = Lanes<S>;
  const RasterizationBlendArgs<S>& a = *b.args;
  const int64_t origin = (place.camera * a.height + place.y0) * a.width + place.x0;
  V v_background[C];
  for (int c = 0; c < C; ++c) v_background[c] = V(0);
  for (int block = 0; block < kTileBlockCount; ++block) {
    if (!(place.blocks_inside >> block & 1)) continue;
    const BlockView view(place, block);
    const int64_t corner = origin + int64_t(view.y) * a.width + view.x, values = corner * a.n_channels + b.first_channel;
    const V light = load_block(view, S(1), (const S*)nullptr, 0, 0), left = light - load_block(view, S(0), a.alphas + corner, a.width, 1);
    V rest = b.first_channel == 0 && a.v_alphas ? -left * load_block(view, S(0), a.v_alphas + corner, a.width, 1) : V(0);
    for (int c = 0; c < C; ++c) {
      const V v = load_block(view, S(0), a.v_render + values + c, a.width * a.n_channels, a.n_channels);
      rest = fma_(v, load_block(view, S(0), a.render + values + c, a.width * a.n_channels, a.n_channels), rest);
      g.v_color[c][block] = v;
      v_background[c] = fma_(left, v, v_background[c]);
    }
    g.transmittance[block] = light;
    g.rest[block] = rest;
  }
  if (!a.v_backgrounds) return;
  for (int c = 0; c < C; ++c) {
    S lane[kLanes], sum = 0;
    v_background[c].store(lane);
    for (const S x : lane) sum += x;
    b.tile_v_background[kSplatChannels * tile + c] = sum;
  }
}

template <class S, int C, bool kAbsgrad>
struct PairSums {
  Lanes<S> moment[kMoments], color[C], abs[2];
};

template <class S, int C, bool kAbsgrad>
GAF_HD void add_block(const TileSplat<S>& s, int block, const BlockPixels<S>& p, TileGrads<S, C>& g, PairSums<S, C, kAbsgrad>& sums) {
  using V = Lanes<S>;
  V u, v;
  const V power = splat_power(s, p, u, v);
  V shade = V(s.color[0]) * g.v_color[0][block];
  for (int c = 1; c < C; ++c) shade = fma_(V(s.color[c]), g.v_color[c][block], shade);
  V transmittance = g.transmittance[block], rest = g.rest[block];
  const BlendGrad<V> d = blend_vjp(power, shade, transmittance, rest);
  g.transmittance[block] = transmittance;
  g.rest[block] = rest;
  for (int c = 0; c < C; ++c) sums.color[c] = fma_(d.weight, g.v_color[c][block], sums.color[c]);
  const V du = d.alpha_times * u, dv = d.alpha_times * v;
  sums.moment[0] = sums.moment[0] + d.alpha_times;
  sums.moment[1] = sums.moment[1] + du;
  sums.moment[2] = sums.moment[2] + dv;
  sums.moment[3] = fma_(du, u, sums.moment[3]);
  sums.moment[4] = fma_(du, v, sums.moment[4]);
  sums.moment[5] = fma_(dv, v, sums.moment[5]);
  if constexpr (kAbsgrad) {
    const V x = V(s.u_x) * du, y = fma_(V(s.u_y), du, V(s.v_y) * dv);
    sums.abs[0] = sums.abs[0] + max_(x, -x);
    sums.abs[1] = sums.abs[1] + max_(y, -y);
  }
}

template <class S, int C, bool kAbsgrad>
void store_sums(const PairSums<S, C, kAbsgrad>& sums, PairGrad<S>& out) {
  Lanes<S> columns[kLanes];
  for (int i = 0; i < kLanes; ++i) columns[i] = Lanes<S>(0);
  for (int i = 0; i < kMoments; ++i) columns[i] = sums.moment[i];
  for (int c = 0; c < C; ++c) columns[kMoments + c] = sums.color[c];
  if constexpr (kAbsgrad) columns[kAbs] = sums.abs[0], columns[kAbs + 1] = sums.abs[1];
  S rows[kLanes][kLanes];
  S* row[kLanes];
  for (int i = 0; i < kLanes; ++i) row[i] = rows[i];
  lanes_to_rows(columns, kLanes, row, kLanes);
  Lanes<S> sum[4];
  for (int i = 0; i < 4; ++i) {
    sum[i] = (Lanes<S>::load(rows[i]) + Lanes<S>::load(rows[4 + i])) + (Lanes<S>::load(rows[8 + i]) + Lanes<S>::load(rows[12 + i]));
  }
  ((sum[0] + sum[1]) + (sum[2] + sum[3])).store(out.value);
}

template <class S>
struct AllBlockPixels {
  BlockPixels<S> of[kTileBlockCount];
};

template <class S, int C, bool kAbsgrad>
void blend_channels_vjp(const TileBlend<S>& b, int64_t tile) {
  using V = Lanes<S>;
  const TilePlace<S> place(b.grid, tile);
  const Splat<S>* splats = reinterpret_cast<const Splat<S>*>(b.args->splats);
  alignas(64) TileGrads<S, C> g;
  load_tile(b, tile, place, g);
  alignas(64) AllBlockPixels<S> pixels;
  for (int i = 0; i < kTileBlockCount; ++i) pixels.of[i] = block_pixels<S>(i);
  const int64_t begin = b.tile_begin[tile], end = begin + b.tile_walked[tile];
  for (int64_t i = begin; i < end; ++i) {
    // A tile's splats, and where their sums go, are strewn over memory: asked for in time.
    const Pair& next = b.pairs[i + kAhead < end ? i + kAhead : i];
    __builtin_prefetch(splats + next.splat);
    if (next.blocks) __builtin_prefetch(b.slots + slot_of(b, next), 1);
    const Pair& pair = b.pairs[i];
    if (!pair.blocks) continue;
    TileSplat<S> s = tile_splat(splats[pair.splat], S(place.x0), S(place.y0));
    load_colors(b, pair.splat, place.camera, s);
    PairSums<S, C, kAbsgrad> sums;
    for (V& m : sums.moment) m = V(0);
    for (V& m : sums.color) m = V(0);
    for (V& m : sums.abs) m = V(0);
    for (uint64_t todo = pair.blocks; todo; todo &= todo - 1) {
      const int block = __builtin_ctzll(todo);
      add_block<S, C, kAbsgrad>(s, block, pixels.of[block], g, sums);
    }
    const int64_t slot = slot_of(b, pair);
    store_sums(sums, b.slots[slot]);
    b.slot_used[slot] = 1;
  }
}

template <class S, int C>
void blend_channels_vjp(const TileBlend<S>& b, int64_t tile) {
  return b.args->absgrad ? blend_channels_vjp<S, C, true>(b, tile) : blend_channels_vjp<S, C, false>(b, tile);
}

// The sums of a splat over its pairs, in the order in which the tiles were found.
template <class S>
GAF_HD void sum_slots(const TileBlend<S>& b, int64_t row, S* out) {
  Lanes<S> sum(0);
  for (int64_t slot = b.first_slot[row]; slot < b.first_slot[row + 1]; ++slot) {
    if (b.slot_used[slot]) sum = sum + Lanes<S>::load(b.slots[slot].value);
  }
  sum.store(out);
}

}  // namespace

template <class S>
void blend_tile_vjp(const TileBlend<S>& b, int64_t tile) {
  switch (b.n_channels) {
    case 1: return blend_channels_vjp<S, 1>(b, tile);
    case 2: return blend_channels_vjp<S, 2>(b, tile);
    case 3: return blend_channels_vjp<S, 3>(b, tile);
    default: return blend_channels_vjp<S, 4>(b, tile);
  }
}

// Groups of rows [begin, end): from the sums of pairs to the gradients of splats. Passes after the first add to the shape's.
template <class S>
void sum_pairs(const TileBlend<S>& b, int64_t begin, int64_t end) {
  using V = Lanes<S>;
  const RasterizationBlendArgs<S>& a = *b.args;
  const bool first_pass = b.first_channel == 0;
  const int64_t groups = b.grid.rows_per_camera / kLanes;
  for (int64_t group = begin; group < end; ++group) {
    S sums[kLanes][kLanes];
    const S* row[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      row[i] = sums[i];
      sum_slots(b, kLanes * group + i, sums[i]);
    }
    V m[kLanes], f[kLanes];
    rows_to_lanes(row, kLanes, m);
    load_rows(a.splats, kLanes * group, a.n_cameras * b.grid.rows_per_camera, kLanes, f);
    const Whitening<V> w = {f[2], f[3], f[4]};
    const ScreenGrad<V> s = moments_vjp(w, Moments<V>{m[0], m[1], m[2], m[3], m[4], m[5]});
    V fields[kLanes] = {s.xx, s.xy, s.yy, m[0], V(0), V(0), V(0), V(0), V(0), V(0), V(0), V(0), V(0), V(0), V(0), V(0)};
    if (!a.features) {
      for (int c = 0; c < b.n_channels; ++c) fields[kGradColor + c] = m[kMoments + c];
    }
    S* out = a.v_splats + kLanes * kLanes * group;
    for (int i = 0; i < kLanes; ++i) {
      if (!first_pass) fields[i] = fields[i] + V::load(out + kLanes * i);
      fields[i].store(out + kLanes * i);
    }
    const int64_t camera = group / groups, first = (group - camera * groups) * kLanes, n = a.n_gaussians;
    V xy[2] = {s.x, s.y}, abs[2] = {m[kAbs] * V(2 * kLn2), m[kAbs + 1] * V(2 * kLn2)}, before[2];
    if (!first_pass) {
      load_rows(a.v_means2d + 2 * camera * n, first, n, 2, before);
      xy[0] = xy[0] + before[0], xy[1] = xy[1] + before[1];
    }
    store_rows(xy, 2, a.v_means2d + 2 * camera * n, first, n);
    if (a.v_means2d_abs) store_rows(abs, 2, a.v_means2d_abs + 2 * camera * n, first, n);
    if (!a.v_features) continue;
    for (int i = 0; i < kLanes && first + i < n; ++i) {
      S* v = a.v_features + (camera * n + first + i) * a.n_channels + b.first_channel;
      for (int c = 0; c < b.n_channels; ++c) v[c] = sums[i][kMoments + c];
    }
  }
}

template void blend_tile_vjp(const TileBlend<Number>&, int64_t);
template void sum_pairs(const TileBlend<Number>&, int64_t, int64_t);

}  // namespace gaf::cpu::GAF_ISA
