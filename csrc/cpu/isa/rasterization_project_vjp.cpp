// Gradients of splats to gradients of Gaussians and cameras, sixteen at a time. A Gaussian sums over its cameras in their order.
#include "rasterization_project.h"

namespace gaf::cpu::GAF_ISA {
namespace {

template <class S>
struct ColorGrad {
  Lanes<S> columns[kMaxColorColumns];
};

// Adds to the gradient of the colours, and returns the gradient of the mean through the viewing direction.
template <class S>
GAF_HD Vec3<Lanes<S>> colors_vjp(const RasterizationProjectArgs<S>& a, int64_t camera, int64_t first, Vec3<Lanes<S>> mean,
                                 Vec3<Lanes<S>> camera_position, const Lanes<S>* v_channels, decltype(Lanes<S>(0) > Lanes<S>(0)) visible,
                                 ColorGrad<S>& v_colors) {
  using V = Lanes<S>;
  Vec3<V> none = {V(0), V(0), V(0)};
  if (!a.colors) return none;
  if (a.sh_degree < 0) {
    for (int c = 0; c < a.n_colors && c < kSplatChannels; ++c) v_colors.columns[c] = v_colors.columns[c] + v_channels[c];
    return none;
  }
  V coefficients[kMaxColorColumns], basis[kMaxShBases], v_basis[kMaxShBases];
  load_rows(colors_of(a, camera), first, a.n_gaussians, int(a.n_colors), coefficients);
  ViewDirection<V> direction = view_direction(mean, camera_position);
  direction.unit = {select_(visible, direction.unit.x, V(0)), select_(visible, direction.unit.y, V(0)), select_(visible, direction.unit.z, V(0))};
  const int degree = int(a.sh_degree), n_bases = (degree + 1) * (degree + 1);
  sh_basis(degree, direction.unit, basis);
  for (int k = 0; k < n_bases; ++k) v_basis[k] = V(0);
  for (int c = 0; c < 3; ++c) {
    V sum = V(S(0.5));
    for (int k = 0; k < n_bases; ++k) sum = fma_(basis[k], coefficients[3 * k + c], sum);
    const V v = select_(visible & (sum > V(0)), v_channels[c], V(0));  // colours are clamped from below
    for (int k = 0; k < n_bases; ++k) {
      v_colors.columns[3 * k + c] = fma_(basis[k], v, v_colors.columns[3 * k + c]);
      v_basis[k] = fma_(coefficients[3 * k + c], v, v_basis[k]);
    }
  }
  return view_direction_vjp(direction, sh_basis_vjp(degree, direction.unit, v_basis));
}

template <class S>
struct GroupGrad {
  GaussianGrad<Lanes<S>> geometry;
  Lanes<S> opacity;
  ColorGrad<S> colors;
};

template <class S>
GAF_HD void clear_geometry(GroupGrad<S>& g) {
  using V = Lanes<S>;
  g.geometry = {{V(0), V(0), V(0)}, {V(0), V(0), V(0), V(0)}, {V(0), V(0), V(0)}};
  g.opacity = V(0);
}

template <class S>
GAF_HD void clear_colors(GroupGrad<S>& g, int64_t n) {
  for (int i = 0; i < n; ++i) g.colors.columns[i] = Lanes<S>(0);
}

template <class S>
GAF_HD void store_geometry(const RasterizationProjectArgs<S>& a, const GroupGrad<S>& g, int64_t camera, int64_t first) {
  const int64_t n = a.n_gaussians, offset = a.gaussians_per_camera ? camera * n : 0;
  const GaussianGrad<Lanes<S>>& v = g.geometry;
  const Lanes<S> m[3] = {v.mean.x, v.mean.y, v.mean.z}, q[4] = {v.quat.w, v.quat.x, v.quat.y, v.quat.z};
  const Lanes<S> s[3] = {v.scale.x, v.scale.y, v.scale.z};
  store_rows(m, 3, a.v_means + 3 * offset, first, n);
  store_rows(q, 4, a.v_quats + 4 * offset, first, n);
  store_rows(s, 3, a.v_scales + 3 * offset, first, n);
  store_rows(&g.opacity, 1, a.v_opacities + offset, first, n);
}

template <class S>
struct CameraGrad {
  Mat3<Lanes<S>> rotation;
  Vec3<Lanes<S>> translation, position;
};

template <class S, class M>
GAF_HD void add_where(M visible, Vec3<Lanes<S>>& sum, Vec3<Lanes<S>> x) {
  const Lanes<S> zero(0);
  sum += Vec3<Lanes<S>>{select_(visible, x.x, zero), select_(visible, x.y, zero), select_(visible, x.z, zero)};
}

template <class S>
GAF_HD void project_group_vjp(const RasterizationProjectArgs<S>& a, const PinholeCamera<S>& camera_scalar, const GaussianGroup<S>& in,
                              int64_t camera, int64_t first, GroupGrad<S>& out, CameraGrad<S>& v_camera) {
  using V = Lanes<S>;
  const int64_t n = a.n_gaussians;
  S seen[kLanes];
  for (int i = 0; i < kLanes; ++i) seen[i] = first + i < n ? S(a.radii[2 * (camera * n + first + i)] > 0) : S(0);
  const auto visible = V::load(seen) > V(0);
  if (!visible.bits()) return;

  const PinholeCamera<V> cam = broadcast(camera_scalar);
  const ProjectedGaussian<V> g = project_gaussian(cam, in.mean, in.quat, in.scale, V(S(a.eps2d)));
  const S* block = a.v_splats + (camera * groups_of(n) + first / kLanes) * kLanes * kLanes;
  const auto field = [&](int i) __attribute__((always_inline)) { return V::load(block + kLanes * i); };
  ScreenGrad<V> v = {V(0), V(0), field(kGradXX), field(kGradXY), field(kGradYY), V(0)};
  if (a.v_means2d) {
    V xy[2];
    load_rows(a.v_means2d + 2 * camera * n, first, n, 2, xy);
    v.x = xy[0];
    v.y = xy[1];
  }
  if (a.v_depths) load_rows(a.v_depths + camera * n, first, n, 1, &v.depth);
  V v_opacity = field(kGradLogOpacity) / in.opacity;
  if (a.antialiased) {
    // The splat's log-opacity is that of the Gaussian plus that of the compensation.
    const V compensation = blur_compensation(g);
    blur_compensation_vjp(g, V(S(a.eps2d)), compensation, field(kGradLogOpacity) / compensation, v);
  }
  V v_channels[kSplatChannels];
  for (int c = 0; c < kSplatChannels; ++c) v_channels[c] = field(kGradColor + c);
  const int n_channels = !a.colors ? 0 : a.sh_degree >= 0 ? 3 : int(a.n_colors);
  if (a.append_depth && n_channels < kSplatChannels) v.depth = v.depth + v_channels[n_channels];

  const V zero(0);
  const Vec3<V> v_direction = colors_vjp(a, camera, first, in.mean, cam.position, v_channels, visible, out.colors);
  Mat3<V> v_rotation = {{zero, zero, zero}, {zero, zero, zero}, {zero, zero, zero}};
  Vec3<V> v_translation = {zero, zero, zero};
  const GaussianGrad<V> d = project_gaussian_vjp(cam, g, in.mean, in.scale, v, v_rotation, v_translation);
  add_where<S>(visible, out.geometry.mean, d.mean + v_direction);
  add_where<S>(visible, out.geometry.scale, d.scale);
  Quat<V>& q = out.geometry.quat;
  q = q + Quat<V>{select_(visible, d.quat.w, zero), select_(visible, d.quat.x, zero), select_(visible, d.quat.y, zero), select_(visible, d.quat.z, zero)};
  out.opacity = out.opacity + select_(visible, v_opacity, zero);
  if (!a.v_viewmats) return;
  add_where<S>(visible, v_camera.rotation.c0, v_rotation.c0);
  add_where<S>(visible, v_camera.rotation.c1, v_rotation.c1);
  add_where<S>(visible, v_camera.rotation.c2, v_rotation.c2);
  add_where<S>(visible, v_camera.translation, v_translation);
  add_where<S>(visible, v_camera.position, -v_direction);
}

template <class S>
GAF_HD S sum_lanes(Lanes<S> a) {
  S lane[kLanes], sum = 0;
  a.store(lane);
  for (const S x : lane) sum += x;
  return sum;
}

template <class S>
GAF_HD Vec3<S> sum_lanes(Vec3<Lanes<S>> a) { return {sum_lanes<S>(a.x), sum_lanes<S>(a.y), sum_lanes<S>(a.z)}; }

// v [4, 4] row-major, added to.
template <class S>
GAF_HD void add_viewmat_grad(const PinholeCamera<S>& camera, const CameraGrad<S>& g, S* v) {
  Mat3<S> r = {sum_lanes<S>(g.rotation.c0), sum_lanes<S>(g.rotation.c1), sum_lanes<S>(g.rotation.c2)};
  Vec3<S> t = sum_lanes<S>(g.translation);
  camera_position_vjp(camera, sum_lanes<S>(g.position), r, t);
  const Vec3<S> columns[4] = {r.c0, r.c1, r.c2, t};
  for (int j = 0; j < 4; ++j) {
    v[j] += columns[j].x;
    v[4 + j] += columns[j].y;
    v[8 + j] += columns[j].z;
  }
}

}  // namespace

// Groups [begin, end), all cameras. v_viewmats [C, 4, 4]: this range's share, written, or null.
template <class S>
void project_groups_vjp(const RasterizationProjectArgs<S>& a, int64_t begin, int64_t end, S* v_viewmats) {
  using V = Lanes<S>;
  const int n_columns = a.v_colors && (a.sh_degree >= 0 || a.n_colors <= kSplatChannels) ? int(a.n_colors) : 0;
  const V zero(0);
  if (v_viewmats) {
    for (int64_t i = 0; i < 16 * a.n_cameras; ++i) v_viewmats[i] = 0;
  }
  for (int64_t group = begin; group < end; ++group) {
    const int64_t first = group * kLanes;
    GaussianGroup<S> in;
    GroupGrad<S> out;
    clear_geometry(out);
    clear_colors(out, kMaxColorColumns);
    for (int64_t camera = 0; camera < a.n_cameras; ++camera) {
      if (camera == 0 || a.gaussians_per_camera) in = load_group(a, camera, first);
      if (camera > 0 && a.gaussians_per_camera) clear_geometry(out);
      if (camera > 0 && a.colors_per_camera) clear_colors(out, n_columns);
      CameraGrad<S> v_camera = {{{zero, zero, zero}, {zero, zero, zero}, {zero, zero, zero}}, {zero, zero, zero}, {zero, zero, zero}};
      const PinholeCamera<S> scalar = camera_of(a, camera);
      project_group_vjp(a, scalar, in, camera, first, out, v_camera);
      if (v_viewmats) add_viewmat_grad(scalar, v_camera, v_viewmats + 16 * camera);
      if (a.gaussians_per_camera || camera + 1 == a.n_cameras) store_geometry(a, out, camera, first);
      if (n_columns && (a.colors_per_camera || camera + 1 == a.n_cameras)) {
        const int64_t offset = a.colors_per_camera ? camera * a.n_gaussians * n_columns : 0;
        store_rows(out.colors.columns, n_columns, a.v_colors + offset, first, a.n_gaussians);
      }
    }
  }
}

template void project_groups_vjp(const RasterizationProjectArgs<Number>&, int64_t, int64_t, Number*);

}  // namespace gaf::cpu::GAF_ISA
