#!/usr/bin/env bash
# csrc/cpu with AddressSanitizer and UndefinedBehaviorSanitizer: builds it into BUILD_DIR beside a copy of the package, and runs tests/ops and
# tests/native (or the tests that are named) with each instruction set that this processor has.
#     scripts/sanitize_cpu.sh [BUILD_DIR] [-- pytest arguments]     BUILD_DIR: build/asan by default
# `python` is one that has the test dependencies and pybind11. ISAS="avx2 baseline" chooses instruction sets.
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/asan
if [ $# -gt 0 ] && [ "$1" != -- ]; then build=$1; shift; fi
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- tests/ops tests/native
mkdir -p "$build"
build=$(realpath "$build")

cmake -S . -B "$build" -G Ninja -DGAF_SANITIZE=ON -DGAF_CUDA=OFF -DPython_EXECUTABLE="$(command -v python)" \
  -Dpybind11_DIR="$(python -m pybind11 --cmakedir)" > /dev/null
cmake --build "$build"
rm -rf "$build/python"
mkdir "$build/python"
cp -r python/gafcore "$build/python/"
rm -f "$build"/python/gafcore/native/_native*.so  # the one that `make develop` made
cmake --install "$build" --prefix "$build/python" > /dev/null

export PYTHONPATH="$build/python" OMP_WAIT_POLICY=passive
export ASAN_OPTIONS=detect_leaks=0  # of Python's own
preload="$("${CXX:-g++}" -print-file-name=libasan.so) $("${CXX:-g++}" -print-file-name=libubsan.so)"
for isa in ${ISAS:-avx512 avx2 baseline}; do
  export GAFCORE_ISA=$isa
  chosen=$(LD_PRELOAD=$preload python -c "from gafcore.native._native import isa_name; print(isa_name())")
  if [ "$chosen" != "$isa" ]; then
    echo "-- $isa: NOT TESTED, this processor does not have it"
    continue
  fi
  echo "-- $isa"
  LD_PRELOAD=$preload python -m pytest "$@"
done
