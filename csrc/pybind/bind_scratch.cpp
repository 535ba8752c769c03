#include "cpu/scratch.h"
#include "module.h"

namespace gaf {

// Scratch memory that outlives a call is handed to Python as a buffer of bytes; it goes back to the pool when Python lets go of it.
void define_scratch(pybind11::module_& m) {
  using cpu::Scratch;
  pybind11::class_<Scratch>(m, "Scratch", pybind11::buffer_protocol()).def(pybind11::init<size_t>()).def_buffer([](Scratch& s) {
    return pybind11::buffer_info(s.as<uint8_t>(), pybind11::ssize_t(s.size()));
  });
  m.def("scratch_pooled", &cpu::scratch_pooled, "Bytes that the kernels keep to use again.");
  m.def("scratch_release", &cpu::scratch_release, "Give them back to the system.");
}

}  // namespace gaf
