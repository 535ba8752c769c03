// Rows of numbers to lanes and back: the inputs are arrays of structures, the formulas want sixteen of each number at once.
#pragma once
#include "cpu/simd.h"

namespace gaf::cpu::GAF_ISA {

#if GAF_AVX512
// In place: register i holds row i before, column i after.
GAF_HD void transpose16(__m512* r) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 4) {
    const __m512 a = _mm512_unpacklo_ps(r[i], r[i + 1]), b = _mm512_unpackhi_ps(r[i], r[i + 1]);
    const __m512 c = _mm512_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
    t[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(c)));
    t[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(c)));
    t[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b), _mm512_castps_pd(d)));
    t[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b), _mm512_castps_pd(d)));
  }
  for (int i = 0; i < 4; ++i) {  // t[4 q + i]: its 128-bit lane p holds column 4 p + i of rows 4 q .. 4 q + 3
    const __m512 a = _mm512_shuffle_f32x4(t[i], t[4 + i], 0x44), b = _mm512_shuffle_f32x4(t[i], t[4 + i], 0xee);
    const __m512 c = _mm512_shuffle_f32x4(t[8 + i], t[12 + i], 0x44), d = _mm512_shuffle_f32x4(t[8 + i], t[12 + i], 0xee);
    r[i] = _mm512_shuffle_f32x4(a, c, 0x88);
    r[4 + i] = _mm512_shuffle_f32x4(a, c, 0xdd);
    r[8 + i] = _mm512_shuffle_f32x4(b, d, 0x88);
    r[12 + i] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
}
#endif

// columns[j] lane i = rows[i][j], for j < width.
template <class S>
GAF_HD void rows_to_lanes(const S* const* rows, int width, Lanes<S>* columns) {
  int j = 0;
#if GAF_AVX512
  if constexpr (std::is_same_v<S, float>) {
    for (; j + 16 <= width; j += 16) {
      __m512 r[16];
      for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(rows[i] + j);
      transpose16(r);
      for (int i = 0; i < 16; ++i) columns[j + i] = Lanes<S>((typename Lanes<S>::raw)r[i]);
    }
  }
#endif
  for (; j < width; ++j) {
    S lane[kLanes];
    for (int i = 0; i < kLanes; ++i) lane[i] = rows[i][j];
    columns[j] = Lanes<S>::load(lane);
  }
}

// rows[i][j] = columns[j] lane i, for j < width and i < count.
template <class S>
GAF_HD void lanes_to_rows(const Lanes<S>* columns, int width, S* const* rows, int count) {
  int j = 0;
#if GAF_AVX512
  if constexpr (std::is_same_v<S, float>) {
    for (; j + 16 <= width; j += 16) {
      __m512 r[16];
      for (int i = 0; i < 16; ++i) r[i] = (__m512)columns[j + i].v;
      transpose16(r);
      for (int i = 0; i < count; ++i) _mm512_storeu_ps(rows[i] + j, r[i]);
    }
  }
#endif
  for (; j < width; ++j) {
    S lane[kLanes];
    columns[j].store(lane);
    for (int i = 0; i < count; ++i) rows[i][j] = lane[i];
  }
}

// Sixteen consecutive rows of a [n, width] array, from row `first`; lanes past the last of `n` rows repeat it.
template <class S>
GAF_HD void load_rows(const S* base, int64_t first, int64_t n, int width, Lanes<S>* columns) {
  const S* rows[kLanes];
  for (int i = 0; i < kLanes; ++i) rows[i] = base + width * (first + i < n ? first + i : n - 1);
  rows_to_lanes(rows, width, columns);
}

template <class S>
GAF_HD void store_rows(const Lanes<S>* columns, int width, S* base, int64_t first, int64_t n) {
  S* rows[kLanes];
  const int count = int(n - first < kLanes ? n - first : kLanes);
  for (int i = 0; i < count; ++i) rows[i] = base + width * (first + i);
  lanes_to_rows(columns, width, rows, count);
}

}  // namespace gaf::cpu::GAF_ISA
