// Gaussians to splats, sixteen at a time.
#include "rasterization_project.h"

namespace gaf::cpu::GAF_ISA {
namespace {

template <class S>
struct Colors {
  Lanes<S> channel[kSplatChannels];
};

template <class S>
GAF_HD Colors<S> colors_of_group(const RasterizationProjectArgs<S>& a, int64_t camera, int64_t first, Vec3<Lanes<S>> mean,
                                 Vec3<Lanes<S>> camera_position, Lanes<S> depth) {
  using V = Lanes<S>;
  Colors<S> out;
  for (int c = 0; c < kSplatChannels; ++c) out.channel[c] = V(0);
  int n_channels = 0;
  if (a.colors && a.sh_degree >= 0) {
    V coefficients[kMaxColorColumns], basis[kMaxShBases];
    load_rows(colors_of(a, camera), first, a.n_gaussians, int(a.n_colors), coefficients);
    sh_basis(int(a.sh_degree), view_direction(mean, camera_position).unit, basis);
    const int n_bases = int((a.sh_degree + 1) * (a.sh_degree + 1));
    for (int c = 0; c < 3; ++c) {
      V sum = V(S(0.5));
      for (int k = 0; k < n_bases; ++k) sum = fma_(basis[k], coefficients[3 * k + c], sum);
      out.channel[c] = max_(V(0), sum);  // in this order NaN stays NaN
    }
    n_channels = 3;
  } else if (a.colors && a.n_colors <= kSplatChannels) {
    n_channels = int(a.n_colors);
    V loaded[kLanes];  // room for the vectors that a full row of sixteen would fill
    load_rows(colors_of(a, camera), first, a.n_gaussians, n_channels, loaded);
    for (int c = 0; c < n_channels; ++c) out.channel[c] = loaded[c];
  }
  if (a.append_depth && n_channels < kSplatChannels) out.channel[n_channels] = depth;
  return out;
}

// 0, and NaN where one of the channels that travel beside the splat (there are more than it carries) is not finite.
template <class S>
GAF_HD Lanes<S> features_of_group(const RasterizationProjectArgs<S>& a, int64_t camera, int64_t first) {
  S sum[kLanes] = {};
  if (!a.colors || a.sh_degree >= 0 || a.n_colors <= kSplatChannels) return Lanes<S>(0);
  const S* row = colors_of(a, camera) + first * a.n_colors;
  for (int i = 0; i < kLanes && first + i < a.n_gaussians; ++i, row += a.n_colors) {
    int nonfinite = 0;
    for (int64_t c = 0; c < a.n_colors; ++c) nonfinite |= row[c] - row[c] != 0;
    if (nonfinite) sum[i] = S(__builtin_nan(""));
  }
  return Lanes<S>::load(sum);
}

template <class S>
GAF_HD Lanes<S> lanes_below(int64_t count) {
  return select_(lane_numbers<S>() < Lanes<S>(S(count < kLanes ? count : kLanes)), Lanes<S>(1), Lanes<S>(0));
}

template <class V>
GAF_HD V ceil_(V a) {
  const V t = to_float(to_int(a));
  return t + select_(t < a, V(1), V(0));
}
#if defined(GAF_FLOAT64)
GAF_HD Lanes<double> ceil_(Lanes<double> a) {
  double lane[kLanes];
  a.store(lane);
  for (double& x : lane) x = std::ceil(x);
  return Lanes<double>::load(lane);
}
#endif

}  // namespace

// Groups [begin, end) of one camera. Returns how many Gaussians were left out because a number of theirs is not finite.
template <class S>
int64_t project_groups(const RasterizationProjectArgs<S>& a, int64_t camera, int64_t begin, int64_t end) {
  using V = Lanes<S>;
  const PinholeCamera<V> cam = broadcast(camera_of(a, camera));
  const int64_t n = a.n_gaussians, groups = groups_of(n);
  int64_t n_nonfinite = 0;
  for (int64_t group = begin; group < end; ++group) {
    const int64_t first = group * kLanes, count = n - first;
    const GaussianGroup<S> in = load_group(a, camera, first);
    const ProjectedGaussian<V> g = project_gaussian(cam, in.mean, in.quat, in.scale, V(S(a.eps2d)));
    V opacity = in.opacity;
    if (a.antialiased) opacity = opacity * blur_compensation(g);
    const Whitening<V> w = whitening(g.xy, g.yy, g.det);
    const V log2_opacity = log2_(max_(opacity, V(S(1e-30))));
    const Colors<S> color = colors_of_group(a, camera, first, in.mean, cam.position, g.p.z);

    const auto real = lanes_below<S>(count) > V(0);
    // x - x is 0 for every finite x and NaN otherwise. Behind the camera only the depth must be finite to know that.
    const V place = (g.p.z - g.p.z) + (in.opacity - in.opacity);
    V shape = (g.x - g.x) + (g.y - g.y) + (w.u_x - w.u_x) + (w.u_y - w.u_y) + (w.v_y - w.v_y) + (g.xx - g.xx) + (g.det - g.det) + (opacity - opacity) +
              features_of_group(a, camera, first);
    for (int c = 0; c < kSplatChannels; ++c) shape = shape + (color.channel[c] - color.channel[c]);
    const auto in_front = (g.p.z > V(0)) & (g.p.z >= V(S(a.near_plane))) & (g.p.z <= V(S(a.far_plane)));
    const auto finite = place + shape == V(0);
    const uint32_t nonfinite = real.bits() & ((in_front.bits() & ~finite.bits()) | ~(place == V(0)).bits());
    n_nonfinite += __builtin_popcount(nonfinite);

    const V k = extent(log2_opacity);
    const V limit = V(S(1 << 20));  // radii of 10^6 pixels and more are all the same
    const V radius_x = ceil_(min_(k * sqrt_(g.xx), limit)), radius_y = ceil_(min_(k * sqrt_(g.yy), limit));
    const auto seen = (opacity >= V(kAlphaMin)) & (g.det > V(0)) & (max_(radius_x, radius_y) > V(S(a.radius_clip))) &
                      (g.x + radius_x > V(0)) & (g.x - radius_x < V(S(a.width))) & (g.y + radius_y > V(0)) &
                      (g.y - radius_y < V(S(a.height)));
    const auto visible = real & in_front & finite & seen;

    const V zero = V(0), inv_det = 1 / g.det;
    V columns[kLanes] = {g.x, g.y, w.u_x, w.u_y, w.v_y, log2_opacity, color.channel[0], color.channel[1], color.channel[2], color.channel[3],
                         zero, zero, zero, zero, zero, zero};
    for (int i = 0; i < 10; ++i) columns[i] = select_(visible, columns[i], zero);
    const int64_t rows = groups * kLanes;
    store_rows(columns, kLanes, a.splats + kLanes * camera * rows, first, rows);
    const V conic[3] = {select_(visible, g.yy * inv_det, zero), select_(visible, -g.xy * inv_det, zero), select_(visible, g.xx * inv_det, zero)};
    const V depth = select_(visible, g.p.z, zero), alpha = select_(visible, opacity, zero);
    store_rows(columns, 2, a.means2d + 2 * camera * n, first, n);
    store_rows(&depth, 1, a.depths + camera * n, first, n);
    store_rows(conic, 3, a.conics + 3 * camera * n, first, n);
    store_rows(&alpha, 1, a.splat_opacities + camera * n, first, n);
    S rx[kLanes], ry[kLanes];
    select_(visible, radius_x, zero).store(rx);
    select_(visible, radius_y, zero).store(ry);
    for (int i = 0; i < kLanes && i < count; ++i) {
      a.radii[2 * (camera * n + first + i)] = int32_t(rx[i]);
      a.radii[2 * (camera * n + first + i) + 1] = int32_t(ry[i]);
    }
  }
  return n_nonfinite;
}

template int64_t project_groups(const RasterizationProjectArgs<Number>&, int64_t, int64_t, int64_t);

}  // namespace gaf::cpu::GAF_ISA
