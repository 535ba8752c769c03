#!/usr/bin/env bash
# Runs csrc/cuda on the CPU in the emulator's three builds: tests/simt/run.sh BUILD_DIR [plain|asan|tsan ...] [-- pytest arguments]
# BUILD_DIR was configured with -DGAF_SIMT=ON and its target `simt` built; `python` is one that has gafcore and the test dependencies.
# Two builds run at a time, each in one process (a second worker would load torch again), and their output comes when they end.
set -euo pipefail
cd "$(dirname "$0")/../.."
GAFCORE_SIMT_BUILD=$(realpath "$1")
export GAFCORE_SIMT_BUILD OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
shift
kinds=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do kinds+=("$1"); shift; done
[ $# -eq 0 ] || shift
[ ${#kinds[@]} -gt 0 ] || kinds=(tsan asan plain)  # the shortest last

if [ ${#kinds[@]} -gt 1 ]; then
  # shellcheck disable=SC2016
  printf '%s\n' "${kinds[@]}" | xargs -P 2 -I KIND bash -c '
    log=$(mktemp) code=0
    tests/simt/run.sh "$GAFCORE_SIMT_BUILD" KIND -- "$@" > "$log" 2>&1 || code=$?
    cat "$log"; rm "$log"; [ $code = 0 ] || { echo "-- emulator, KIND: FAILED, status $code"; exit 1; }' run "$@"
  exit
fi

library() { "${CXX:-g++}" -print-file-name="$1"; }

kind=${kinds[0]}
echo "-- emulator, $kind"
wrapper=()
preload=""
tests=(tests/simt)
case $kind in
  plain) tests+=(tests/gpu/test_parity.py) ;;  # what a GPU is asked, of the emulator
  asan)
    preload="$(library libasan.so) $(library libubsan.so)"
    export ASAN_OPTIONS=detect_leaks=0  # of Python's own
    ;;
  tsan)
    preload=$(library libtsan.so)
    wrapper=(setarch -R)  # gcc 12's runtime cannot place its shadow memory where addresses are random
    # Python and torch were not compiled for it. A race makes the exit status 66. Without atexit_sleep_ms each process sleeps for a second
    # before it ends, lest other system threads still race: here there are none.
    export TSAN_OPTIONS="ignore_noninstrumented_modules=1 exitcode=66 atexit_sleep_ms=0"
    ;;
  *) echo "run.sh: $kind is none of plain, asan, tsan" >&2; exit 2 ;;
esac
GAFCORE_SIMT=$kind LD_PRELOAD=$preload "${wrapper[@]}" python -m pytest "${tests[@]}" "$@"
