#include "ops/device.h"

#include "launch.h"

namespace gaf::cuda {

#if defined(GAF_SIMT)

int set_device(int device) { return device; }
std::string obstacle() { return ""; }
int runtime_version() { return 0; }
int multiprocessors(int) { return 4; }

#else

int set_device(int device) {
  int before = 0;
  check("set_device", cudaGetDevice(&before));
  // Also where it seems to be current already: torch has a CUDA runtime of its own, and the driver's context is what they share.
  check("set_device", cudaSetDevice(device));
  return before;
}

std::string obstacle() {
  int n = 0, driver = 0;
  const cudaError_t error = cudaGetDeviceCount(&n);
  if (error == cudaSuccess) return n > 0 ? "" : "no device";
  cudaGetLastError();
  cudaDriverGetVersion(&driver);
  const std::string has = driver == 0 ? "no CUDA driver is installed" : "the driver knows CUDA " + std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10);
  return std::string(cudaGetErrorString(error)) + "; " + has;
}

int runtime_version() { return CUDART_VERSION; }

int multiprocessors(int device) {
  int n = 0;
  check("multiprocessors", cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device));
  return n;
}

#endif

}  // namespace gaf::cuda
