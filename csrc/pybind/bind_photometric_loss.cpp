#include "fields.h"
#include "module.h"
#include "ops/photometric_loss.h"

namespace gaf {
namespace {

template <class T>
PhotometricLossArgs<T> read(const pybind11::dict& fields) {
  PhotometricLossArgs<T> a{};
  Fields f("photometric_loss", fields);
  f("n_images", a.n_images);
  f("height", a.height);
  f("width", a.width);
  f("channels", a.channels);
  f("border", a.border);
  f("image", a.image);
  f("target", a.target);
  f("mask", a.mask);
  f("l1", a.l1);
  f("ssim", a.ssim);
  f("weights", a.weights);
  f("ssim_gradient", a.ssim_gradient);
  f("v_l1", a.v_l1);
  f("v_ssim", a.v_ssim);
  f("v_image", a.v_image);
  f.done();
  return a;
}

template <class T>
void define_photometric_loss_for(pybind11::module_ m) {
  def_cpu(m, "photometric_loss_fwd", read<T>, cpu::photometric_loss_fwd<T>);
  def_cpu(m, "photometric_loss_bwd", read<T>, cpu::photometric_loss_bwd<T>);
}

}  // namespace

void define_photometric_loss(const Modules& m) {
  define_photometric_loss_for<float>(m.cpu_float32);
  define_photometric_loss_for<double>(m.cpu_float64);
  def_cuda(m.cuda_float32, "photometric_loss_fwd", read<float>, cuda::photometric_loss_fwd);
  def_cuda(m.cuda_float32, "photometric_loss_bwd", read<float>, cuda::photometric_loss_bwd);
}

}  // namespace gaf
