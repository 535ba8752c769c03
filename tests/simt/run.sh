#!/usr/bin/env bash
# Runs csrc/cuda on the CPU in the emulator's three builds: tests/simt/run.sh BUILD_DIR [plain|asan|tsan ...] [-- pytest arguments]
# BUILD_DIR was configured with -DGAF_SIMT=ON and its target `simt` built; `python` is one that has gafcore and the test dependencies.
set -euo pipefail
cd "$(dirname "$0")/../.."
export GAFCORE_SIMT_BUILD=$(realpath "$1") OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
shift
kinds=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do kinds+=("$1"); shift; done
[ $# -eq 0 ] || shift
[ ${#kinds[@]} -gt 0 ] || kinds=(plain asan tsan)

library() { "${CXX:-g++}" -print-file-name="$1"; }

for kind in "${kinds[@]}"; do
  echo "-- emulator, $kind"
  wrapper=()
  preload=""
  workers=()  # the plain tests take less time than workers take to start; of tsan's, one that ends with the status of a race looks well
  case $kind in
    plain) ;;
    asan)
      preload="$(library libasan.so) $(library libubsan.so)"
      workers=(-n 2)
      export ASAN_OPTIONS=detect_leaks=0  # of Python's own
      ;;
    tsan)
      preload=$(library libtsan.so)
      wrapper=(setarch -R)  # gcc 12's runtime cannot place its shadow memory where addresses are random
      # Python and torch were not compiled for it. A race makes the exit status 66. By default each process sleeps a second before it ends,
      # lest other system threads still race: there are none here.
      export TSAN_OPTIONS="ignore_noninstrumented_modules=1 exitcode=66 atexit_sleep_ms=0"
      ;;
    *) echo "run.sh: $kind is none of plain, asan, tsan" >&2; exit 2 ;;
  esac
  GAFCORE_SIMT=$kind LD_PRELOAD=$preload "${wrapper[@]}" python -m pytest "${workers[@]}" tests/simt "$@"
done
