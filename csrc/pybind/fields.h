// Reads the keywords of a call into an Args struct: numbers as numbers, pointers as integers (or None).
#pragma once
#include <pybind11/pybind11.h>

#include <string>
#include <type_traits>

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

}  // namespace gaf
