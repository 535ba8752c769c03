# Two commands do everything on a machine with Python and a C++ compiler: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
OUT ?= out/demo
DEMO ?=
BIN := $(VENV)/bin
SOURCES := $(shell find csrc cmake python -type f -not -name '*.so' -not -name '*.pyc') CMakeLists.txt pyproject.toml
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt
BUILD_OPTIONS ?=

# pip is given the folder by several targets, and two compilations at once would fight over it. (Each uses all cores by itself.)
.NOTPARALLEL:
.PHONY: demo test lint bench develop clean help
help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:/' | column -t -s:

demo: $(VENV)/.installed  ## make a synthetic capture, fit an avatar to it, write a report with pictures
	$(BIN)/gafcore demo --out $(OUT) $(DEMO)

test: $(VENV)/.test  ## the whole test suite, against the installed package
	$(BIN)/python -m pytest $(TESTS)

lint: $(VENV)/.lint  ## style, types, import directions, C++ rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_sources.py

bench: $(VENV)/.bench  ## benchmark suites beside their peers; SUITE=name for one, SUITE="all --out DIR" chooses the folder
	$(BIN)/gafcore bench $(SUITE)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch goes first and alone, so that the pinned build is the one that everything else sees.
$(VENV)/.installed: $(SOURCES) requirements/constraints.txt | $(BIN)/python
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) $(BUILD_OPTIONS) .
	@touch $@

# Instead of .installed and not after it: pip compiles the kernels anew whenever it is given the folder.
$(VENV)/.test: $(SOURCES) requirements/constraints.txt | $(BIN)/python
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) $(BUILD_OPTIONS) '.[test,track,diffusion,tensorboard]'
	@touch $(VENV)/.installed $@

$(VENV)/.lint: $(VENV)/.installed
	$(PIP_INSTALL) ruff mypy import-linter
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(PIP_INSTALL) pytest pytest-benchmark mediapipe
	$(PIP_INSTALL) --no-deps pytorch-msssim
	@touch $@

develop:  ## compile the kernels into the source tree; then PYTHONPATH=python
	cmake -S . -B build/develop -G Ninja -DPython_EXECUTABLE=$$(command -v $(PYTHON)) -Dpybind11_DIR=$$($(PYTHON) -m pybind11 --cmakedir)
	cmake --build build/develop
	cmake --install build/develop --prefix python > /dev/null

clean:  ## remove builds and the environment
	rm -rf build $(VENV) python/gafcore/native/_native*.so
