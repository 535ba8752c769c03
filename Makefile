PYTHON ?= python3
develop:  ## compile the kernels into the source tree, for PYTHONPATH=python
	cmake -S . -B build/develop -G Ninja -DPython_EXECUTABLE=$$(command -v $(PYTHON)) -Dpybind11_DIR=$$($(PYTHON) -m pybind11 --cmakedir)
	cmake --build build/develop
	cmake --install build/develop --prefix python > /dev/null
