// The CUDA device as the bindings need to know it. Without CUDA these say so.
#pragma once
#include <string>

namespace gaf::cuda {

// Makes `device` current and returns the one that was. Raises when there is no such device or no driver.
int set_device(int device);
// What stands in the way of running kernels here, or "" where nothing does.
std::string obstacle();
// Of the runtime that the module was built with, for example 13000; 0 without CUDA.
int runtime_version();

// How many multiprocessors `device` has.
int multiprocessors(int device);

// The device is current while this exists.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) : device_(device), before_(set_device(device)) {}
  ~DeviceGuard() {
    if (before_ != device_) set_device(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int device_, before_;
};

}  // namespace gaf::cuda
