// Reads the keywords of a call into an Args struct: numbers as numbers, pointers as integers (or None).
#pragma once
#include <pybind11/pybind11.h>

#include <string>
#include <type_traits>

#include "ops/device.h"
#include "ops/stream.h"

namespace gaf {

class Fields {
 public:
  Fields(const char* op, const pybind11::kwargs& kwargs) : op_(op), kwargs_(kwargs) {}

  template <class M>
  void operator()(const char* name, M& member) {
    PyObject* value = PyDict_GetItemString(kwargs_.ptr(), name);
    if (value) ++used_;
    if constexpr (std::is_pointer_v<M>) {
      // An absent pointer stays null: forward and backward share a struct.
      if (value && value != Py_None) member = static_cast<M>(PyLong_AsVoidPtr(value));
    } else {
      if (!value) throw pybind11::type_error(std::string(op_) + ": missing argument '" + name + "'");
      member = pybind11::cast<M>(pybind11::handle(value));
    }
    if (PyErr_Occurred()) throw pybind11::error_already_set();
  }

  // Every keyword must have been asked for.
  void done() const {
    if (used_ != kwargs_.size()) throw pybind11::type_error(std::string(op_) + ": a keyword is not a field of its Args struct");
  }

 private:
  const char* op_;
  const pybind11::kwargs& kwargs_;
  size_t used_ = 0;
};

// Python calls name(threads, **fields); the interpreter lock is released while the op runs.
template <class Args>
void def_cpu(pybind11::module_& m, const char* name, Args (*read)(const pybind11::kwargs&), void (*op)(const Args&, int)) {
  m.def(name, [read, op](int threads, const pybind11::kwargs& kwargs) {
    const Args args = read(kwargs);
    const pybind11::gil_scoped_release release;
    op(args, threads);
  });
}

// allocate(bytes) -> address, from Python's allocator of the device, which keeps the memory until the call is over.
class PythonMemory final : public Memory {
 public:
  explicit PythonMemory(const pybind11::function& allocate) : allocate_(allocate) {}
  void* bytes(size_t n) override { return PyLong_AsVoidPtr(allocate_(n).ptr()); }

 private:
  const pybind11::function& allocate_;
};

// Python calls name(device, stream, allocate, **fields). The op only enqueues, so the interpreter lock stays.
template <class Args>
void def_cuda(pybind11::module_ m, const char* name, Args (*read)(const pybind11::kwargs&), void (*op)(const Args&, Stream)) {
  m.def(name, [read, op](int device, uintptr_t stream, const pybind11::function& allocate, const pybind11::kwargs& kwargs) {
    const Args args = read(kwargs);
    PythonMemory memory(allocate);
    const cuda::DeviceGuard guard(device);
    op(args, Stream{device, reinterpret_cast<void*>(stream), &memory});
  });
}

}  // namespace gaf
