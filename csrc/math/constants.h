// Numbers of splatting, each with its reason.
#pragma once

namespace gaf {

constexpr double kAlphaMin = 1.0 / 255;          // below this an 8-bit image cannot change
constexpr double kAlphaMax = 0.999;              // backward divides by 1 - alpha, so alpha is capped
constexpr double kTransmittanceMin = 1e-4;       // what lies behind cannot change an 8-bit image
constexpr double kFrustumMargin = 0.3;           // of tan(fov / 2): beyond it the linearisation of the projection is frozen
constexpr double kLog2E = 1.4426950408889634;    // log2(e)
constexpr double kLn2 = 0.6931471805599453;      // 1 / log2(e)
constexpr double kLog2AlphaMin = -7.994353436858858;        // log2(kAlphaMin)
constexpr double kLog2AlphaMax = -0.0014434168696687186;    // log2(kAlphaMax)

}  // namespace gaf
