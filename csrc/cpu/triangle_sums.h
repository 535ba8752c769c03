// Sums over the pixels of each triangle, the same bits for any number of threads: the image is cut into blocks whose size is fixed, each block
// sums its own triangles in pixel order, and the blocks' sums are handed on in order.
#pragma once
#include <cstdint>
#include <vector>

#include "parallel.h"

namespace gaf::cpu {

class TriangleSums {
 public:
  // `width` numbers a triangle.
  TriangleSums(int64_t n_faces, int64_t width, int threads) : width_(width), threads_(threads), slots_(threads < 1 ? 1 : threads) {
    for (auto& s : slots_) s.assign(n_faces, -1);
  }

  // add(pixel, face, double* sums) for every pixel that shows a triangle, then emit(face, const double* sums) on this thread. A face is
  // emitted once for each block that shows it.
  template <class Add, class Emit>
  void run(const int32_t* triangle_ids, int64_t n_pixels, Add&& add, Emit&& emit) {
    std::vector<Block> blocks((n_pixels + kBlockPixels - 1) / kBlockPixels);
    parallel_for(int64_t(blocks.size()), 1, threads_, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t b = begin; b < end; ++b) {
        const int64_t first = b * kBlockPixels, last = std::min(first + kBlockPixels, n_pixels);
        sum_block(triangle_ids, first, last, slots_[worker], blocks[b], add);
      }
    });
    for (const Block& block : blocks) {
      for (size_t i = 0; i < block.faces.size(); ++i) emit(block.faces[i], block.sums.data() + i * width_);
    }
  }

 private:
  static constexpr int64_t kBlockPixels = 16384;  // small enough to balance threads, large enough that few triangles are split

  struct Block {
    std::vector<int32_t> faces;
    std::vector<double> sums;  // [faces, width]
  };

  // slots[face] is the face's place in the block, or -1; left as found.
  template <class Add>
  void sum_block(const int32_t* ids, int64_t first, int64_t last, std::vector<int32_t>& slots, Block& block, Add& add) const {
    for (int64_t p = first; p < last; ++p) {
      const int32_t face = ids[p];
      if (face < 0) continue;
      if (slots[face] < 0) {
        slots[face] = int32_t(block.faces.size());
        block.faces.push_back(face);
        block.sums.resize(block.sums.size() + width_, 0.0);
      }
      add(p, face, block.sums.data() + slots[face] * width_);
    }
    for (const int32_t face : block.faces) slots[face] = -1;
  }

  int64_t width_;
  int threads_;
  std::vector<std::vector<int32_t>> slots_;  // one a worker
};

}  // namespace gaf::cpu
