// The tiles that 32 splats touch, found by one warp. Its work is cut into rows of tiles, not into splats, so that a splat over the whole image
// does not keep one lane busy while 31 wait.
#pragma once
#include "cuda/rasterization.h"
#include "math/ellipse.h"
#include "reduce.h"

namespace gaf::cuda {

// The first lane whose running sum exceeds `item`; sums do not fall from lane to lane. 31 where there is none.
__device__ __forceinline__ int lane_of(uint32_t inclusive_sum, uint32_t item) {
  int lane = 0;
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const uint32_t sum = __shfl_sync(kFullMask, inclusive_sum, lane + step - 1);
    if (sum <= item) lane += step;
  }
  return lane;
}

// Tiles side by side. `owner` is the lane whose splat it is.
struct TileSpan {
  uint32_t first;  // number of the first tile, cameras included
  int first_x, last_x;
  int owner;
  bool is_first, is_last;  // row of the splat

  __device__ __forceinline__ int count() const { return last_x >= first_x ? last_x - first_x + 1 : 0; }
};

__device__ __forceinline__ Ellipse<float> load_ellipse(const float* splats, uint32_t row) {
  const float4 a = reinterpret_cast<const float4*>(splats)[4 * int64_t(row)];
  const float2 b = reinterpret_cast<const float2*>(splats)[8 * int64_t(row) + 2];
  return ellipse_of(a.x, a.y, Whitening<float>{a.z, a.w, b.x}, b.y);
}

__device__ __forceinline__ int tile_floor(float pixel, int last) {
  return int(floorf(fminf(fmaxf(pixel * (1.f / kTile), -1.f), float(last))));
}

class WarpTiles {
 public:
  int n_items = 0;  // rows of tiles of all lanes

  // All 32 lanes must call, each with a splat that follows that of the lane before, the first's being of the camera; those whose splat is not
  // visible take part with nothing. Splats are loaded before it is known whether they are visible: one wait less.
  __device__ __forceinline__ WarpTiles(const float* splats, const TileGrid& grid, uint32_t camera, uint32_t row, bool in_camera, bool visible)
      : first_tile_(camera * uint32_t(grid.n_tiles)) {
    int rows = 0;
    e_ = load_ellipse(splats, in_camera ? row : row - uint32_t(lane_index()));
    if (visible) {
      const float half = e_.half_height + float(kEllipseSlack);
      const int low = tile_floor(e_.y - half, grid.tiles_y), high = tile_floor(e_.y + half, grid.tiles_y - 1);
      first_row_ = low > 0 ? low : 0;
      rows = high >= first_row_ ? high - first_row_ + 1 : 0;
    }
    ends_ = warp_inclusive_sum(uint32_t(rows));
    starts_ = ends_ - uint32_t(rows);
    n_items = int(__shfl_sync(kFullMask, ends_, kWarp - 1));
  }

  __device__ __forceinline__ bool has_rows() const { return ends_ > starts_; }

  // All 32 lanes must call, each with its item; those beyond the last get an empty span.
  __device__ __forceinline__ TileSpan span(const TileGrid& grid, int item) const {
    const int owner = lane_of(ends_, uint32_t(item));
    const auto of = [owner](float x) { return __shfl_sync(kFullMask, x, owner); };
    const Ellipse<float> e = {of(e_.x), of(e_.y), of(e_.inv_u_x), of(e_.slant), of(e_.v_y), of(e_.reach2), of(e_.side_y), of(e_.half_height)};
    const int start = int(__shfl_sync(kFullMask, starts_, owner)), end = int(__shfl_sync(kFullMask, ends_, owner));
    const int y = __shfl_sync(kFullMask, first_row_, owner) + item - start;
    TileSpan s = {0, 0, -1, owner, item == start, item + 1 == end};
    const float top = float(y) * kTile + 0.5f - e.y;
    const EllipseSpan<float> at = ellipse_in_slab(e, top, top + float(kTile - 1));
    if (item >= n_items || !(at.top <= at.bottom + float(kEllipseSlack))) return s;
    // A tile is touched when the span meets the x of its pixel centres.
    const int low = tile_floor(at.left + 0.5f, grid.tiles_x), high = tile_floor(at.right - 0.5f, grid.tiles_x - 1);
    s.first_x = low > 0 ? low : 0;
    s.last_x = high;
    s.first = first_tile_ + uint32_t(y) * uint32_t(grid.tiles_x) + uint32_t(s.first_x);
    return s;
  }

 private:
  Ellipse<float> e_;
  int first_row_ = 0;
  uint32_t first_tile_, starts_ = 0, ends_ = 0;
};

// Pairs of splats and tiles, 32 spans at a time.
struct SpanPairs {
  uint32_t before;  // pairs of the spans of the lanes before this one
  uint32_t n;       // of all lanes: fewer than 2^32, for a camera has fewer than 2^27 tiles (memory for 2^35 pixels)
};

// All 32 lanes must call.
__device__ __forceinline__ SpanPairs number_pairs(const TileSpan& span) {
  const uint32_t count = uint32_t(span.count()), sum = warp_inclusive_sum(count);
  return {sum - count, __shfl_sync(kFullMask, sum, kWarp - 1)};
}

// Calls f(j, owner, tile, is_pair) with j < n rounded up to 32, 32 pairs at a time: a row of tiles may hold one pair or hundreds, so the lanes
// share the pairs, not the rows. All 32 lanes must call, and f is called by all 32; where `is_pair` is false there is nothing left for the lane.
template <class F>
__device__ __forceinline__ void for_each_pair(const TileSpan& span, const SpanPairs& pairs, F&& f) {
  for (uint32_t base = 0; base < pairs.n; base += kWarp) {
    const uint32_t j = base + uint32_t(lane_index());
    const int from = lane_of(pairs.before + uint32_t(span.count()), j);
    const uint32_t start = __shfl_sync(kFullMask, pairs.before, from), tile = __shfl_sync(kFullMask, span.first, from);
    const int owner = __shfl_sync(kFullMask, span.owner, from);
    f(j, owner, tile + (j - start), j < pairs.n);
  }
}

}  // namespace gaf::cuda
