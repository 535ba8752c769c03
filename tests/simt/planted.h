// Kernels with planted mistakes and their right twins.
#pragma once
#include <string>
#include <vector>

std::vector<std::string> planted_names();
// out: device memory of 65 floats.
void run_planted(const std::string& name, bool right, float* out);
