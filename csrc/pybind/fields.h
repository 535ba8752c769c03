// Reads the fields of a call, a dict, into an Args struct: numbers as numbers, pointers as what `data_ptr()` says, as integers, or None.
#pragma once
#include <pybind11/pybind11.h>

#include <string>
#include <type_traits>
#include <unordered_map>

#include "ops/device.h"
#include "ops/stream.h"

namespace gaf {

// The Python string of a literal, made once: an op has up to forty fields, and most ops are called for small tensors thousands of times a minute.
inline PyObject* interned(const char* literal) {
  static std::unordered_map<const char*, PyObject*> strings;
  PyObject*& string = strings[literal];
  if (!string) string = PyUnicode_InternFromString(literal);
  if (!string) throw pybind11::error_already_set();
  return string;
}

// Where a tensor's data are: an integer says so itself. The caller keeps the tensor.
inline void* address(PyObject* value) {
  if (PyLong_Check(value)) return PyLong_AsVoidPtr(value);
  const auto number = pybind11::reinterpret_steal<pybind11::object>(PyObject_CallMethodNoArgs(value, interned("data_ptr")));
  if (!number) throw pybind11::error_already_set();
  return PyLong_AsVoidPtr(number.ptr());
}

class Fields {
 public:
  Fields(const char* op, const pybind11::dict& fields) : op_(op), fields_(fields) {}

  template <class M>
  void operator()(const char* name, M& member) {
    PyObject* value = PyDict_GetItemWithError(fields_.ptr(), interned(name));
    if (value) ++used_;
    if constexpr (std::is_pointer_v<M>) {
      // An absent pointer stays null: forward and backward share a struct.
      if (value && value != Py_None) member = static_cast<M>(address(value));
    } else {
      if (!value) throw pybind11::type_error(std::string(op_) + ": missing argument '" + name + "'");
      member = pybind11::cast<M>(pybind11::handle(value));
    }
    if (PyErr_Occurred()) throw pybind11::error_already_set();
  }

  // Every field must have been asked for.
  void done() const {
    if (used_ != fields_.size()) throw pybind11::type_error(std::string(op_) + ": a name is not a field of its Args struct");
  }

 private:
  const char* op_;
  const pybind11::dict& fields_;
  size_t used_ = 0;
};

// Python calls name(threads, fields); the interpreter lock is released while the op runs.
template <class Args>
void def_cpu(pybind11::module_& m, const char* name, Args (*read)(const pybind11::dict&), void (*op)(const Args&, int)) {
  m.def(name, [read, op](int threads, const pybind11::dict& fields) {
    const Args args = read(fields);
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

// Python calls name(device, stream, allocate, fields). The op only enqueues, so the interpreter lock stays.
template <class Args>
void def_cuda(pybind11::module_ m, const char* name, Args (*read)(const pybind11::dict&), void (*op)(const Args&, Stream)) {
  m.def(name, [read, op](int device, uintptr_t stream, const pybind11::function& allocate, const pybind11::dict& fields) {
    const Args args = read(fields);
    PythonMemory memory(allocate);
    const cuda::DeviceGuard guard(device);
    op(args, Stream{device, reinterpret_cast<void*>(stream), &memory});
  });
}

}  // namespace gaf
