// One step of Adam (Kingma and Ba, 2015) for one number, in torch.optim.Adam's order of operations.
#pragma once
#include <cmath>

#include "macros.h"

namespace gaf {

struct AdamRates {
  float step_size;            // rate / (1 - beta1^step)
  float inverse_correction2;  // 1 / sqrt(1 - beta2^step)
  float new1, new2;           // 1 - beta1, 1 - beta2: in float, 1 - 0.999f would be 1e-5 off
  float beta2, eps;
};

// `step` counts from 1.
GAF_HD AdamRates adam_rates(double rate, double beta1, double beta2, double eps, double step) {
  const double correction1 = 1 - std::pow(beta1, step), correction2 = 1 - std::pow(beta2, step);
  return {float(rate / correction1), float(1 / std::sqrt(correction2)), float(1 - beta1), float(1 - beta2), float(beta2), float(eps)};
}

// Updates value and both moments.
GAF_HD void adam_step(const AdamRates& r, float gradient, float& value, float& mean, float& square) {
  mean += r.new1 * (gradient - mean);
  square = r.beta2 * square + r.new2 * gradient * gradient;
  value -= r.step_size * mean / (std::sqrt(square) * r.inverse_correction2 + r.eps);
}

}  // namespace gaf
