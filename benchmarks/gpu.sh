#!/usr/bin/env bash
# Everything a GPU is asked to prove, on a bare machine with Python, torch and nvcc and without network:
#
#   benchmarks/gpu.sh OUT_DIR [PART ...]
#
# Before that, on a machine with network, collect what the bare one lacks (pybind11, cmake, av, pytest, ...; benchmarks/gpu/wheels.txt) into a
# folder, for its Python and platform, and take the folder along; WHEELS names it there, too:
#
#   WHEELS=DIR FOR_PYTHON=3.12 FOR_MACHINE=x86_64 benchmarks/gpu.sh OUT_DIR wheels        (Linux with glibc 2.28 or later)
#
# Parts, each under nine minutes, in this order however they are named; all but the first where none is named:
#   wheels      collect wheels into WHEELS, and peers into WHEELS/peers (needs network, no GPU)
#   deps        install WHEELS into OUT_DIR/deps, which all parts then use
#   build       compile for this card into OUT_DIR/build and put the module into python/gafcore/native
#   peers       install the peers that PEERS holds; one that does not build in time is left out, and not tried again
#   test        pytest -m gpu
#   memcheck racecheck initcheck    compute-sanitizer on the small scenes (together: sanitize)
#   synccheck   the same, reported only: photometric_loss's named barrier is known (docs/kernels/cuda.md)
#   ops         every op but the rasterizer: medians, spread, memory, share of the memory bandwidth
#   rasterize   the rasterizer: 10-300 k Gaussians, three sizes, SH 0 and 3, batches, atomic gradients, half precision
#   scale       frames and training steps a second, peak memory
#   fit         6,000 iterations of a fit at 512x512, with and without graphs: seconds, memory, quality
#   profile     device time kernel by kernel, and its share of what the card can do
#   ncu         hardware counters of every kernel, where ncu can read them
#   attention   multiview_attention beside every SDPA backend, by graph replays
#   diffusion   the full-size prior with random weights: memory and time of a refresh
#   report      OUT_DIR/report.md from the files of the parts that ran
#
# Environment: PYTHON (python3); WHEELS; PEERS (WHEELS/peers), a folder of wheels or source trees of peers (gsplat, fused_ssim, nvdiffrast),
# installed without network into OUT_DIR/peers; LIMIT, seconds a part may take (530); BUDGET_S, seconds a row is
# called for (0.12); GAFCORE_COMMIT, or a file COMMIT, where there is no git.
# Nothing is estimated: a part that cannot run says why in the report.
set -uo pipefail
[ $# -ge 1 ] || { sed -n '2,/^set /{/^#/p}' "$0"; exit 2; }
ALL=(wheels deps build peers test memcheck racecheck initcheck synccheck ops rasterize scale fit profile ncu attention diffusion report)
LEFT_OUT=3 # the status of a part that cannot run here; its last line says why
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
PYTHON=${PYTHON:-python3}
WHEELS=${WHEELS:+$(realpath -m "$WHEELS")}
PEERS=${PEERS:+$(realpath -m "$PEERS")}
PEERS=${PEERS:-${WHEELS:+$WHEELS/peers}}
cd "$root" || exit 2
export PYTHON WHEELS PEERS
export PYTHONPATH="$root/python:$root:$out/deps:$out/peers${PYTHONPATH:+:$PYTHONPATH}"
export PATH="$out/deps/bin:$PATH"
export TORCH_EXTENSIONS_DIR="$out/torch_extensions" GAFCORE_PEERS_LEFT_OUT="$out/peers_left_out.txt"
for folder in /usr/local/cuda/bin /usr/local/cuda/compute-sanitizer; do # where an installer puts nvcc, ncu and compute-sanitizer
  [ ! -d "$folder" ] || PATH="$PATH:$folder"
done

left_out() { echo "$*"; return $LEFT_OUT; }
program() { command -v "$1" > /dev/null || left_out "needs $1: not on PATH, nor in /usr/local/cuda/bin"; }

# needs MODULE ...: names those that cannot be imported.
needs() {
  local missing
  missing=$("$PYTHON" -c 'import importlib.util as i, sys; print(", ".join(m for m in sys.argv[1:] if not i.find_spec(m)))' "$@") || return 1
  [ -z "$missing" ] || left_out "needs $missing: not in ${WHEELS:-a folder of wheels (WHEELS names none)}, or the part deps has not run"
}
kernels() { # what every part that measures needs
  needs torch numpy jaxtyping || return
  "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || left_out "needs a GPU: torch sees none" || return
  "$PYTHON" -c 'from gafcore.native import has_cuda; raise SystemExit(not has_cuda())' || left_out "needs gafcore's CUDA kernels: build has not run"
}
capability() { "$PYTHON" -c 'import sys, torch; print(sys.argv[1] % torch.cuda.get_device_capability())' "$1"; }

part_wheels() {
  [ -n "$WHEELS" ] || { left_out "needs WHEELS, the folder to collect into"; return; }
  local python list="$root/benchmarks/gpu/wheels.txt" constraints="$root/requirements/constraints.txt"
  python=${FOR_PYTHON:-$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
  local machine=${FOR_MACHINE:-$(uname -m)} platform download
  download=("$PYTHON" -m pip download --quiet --disable-pip-version-check --only-binary=:all: --python-version "$python" --implementation cp -c "$constraints")
  for platform in manylinux_2_28 manylinux_2_27 manylinux_2_26 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux_2_12 manylinux2010 manylinux1; do
    download+=(--platform "${platform}_$machine") # pip takes them by name, not "this and older"
  done
  mkdir -p "$WHEELS/peers"
  "${download[@]}" --dest "$WHEELS" -r <(sed '/^# no-deps/,$d' "$list") || return 1
  "${download[@]}" --no-deps --dest "$WHEELS" -r <(sed -n '/^# no-deps/,/^# peers/p' "$list") || return 1
  "${download[@]}" --no-deps --dest "$WHEELS/peers" -r <(sed -n '/^# peers/,$p' "$list") || echo "gsplat could not be collected"
  for peer in rahul-goel/fused-ssim NVlabs/nvdiffrast; do
    [ -d "$WHEELS/peers/${peer#*/}" ] || timeout 60 git clone --quiet --depth 1 "https://github.com/$peer" "$WHEELS/peers/${peer#*/}" ||
      echo "${peer#*/} could not be collected: put its sources into $WHEELS/peers"
  done
  echo "collected $(find "$WHEELS" -name '*.whl' | wc -l) wheels for Python $python on $machine"
}

part_deps() {
  [ -d "$WHEELS" ] || { left_out "needs WHEELS, a folder of wheels: named is \"$WHEELS\"; parts use what this Python has"; return; }
  local install=("$PYTHON" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --upgrade --target "$out/deps") wheel failed=0
  "${install[@]}" "$WHEELS"/*.whl && { echo "installed $(find "$WHEELS" -maxdepth 1 -name '*.whl' | wc -l) wheels"; return 0; }
  for wheel in "$WHEELS"/*.whl; do # together they are refused where one is for another machine
    "${install[@]}" "$wheel" || { echo "$(basename "$wheel") could not be installed"; failed=1; }
  done
  return $failed
}

part_build() {
  program nvcc || return
  needs torch pybind11 || return
  program cmake || return
  local generator=() architecture
  architecture=$(capability '%d%d') || { left_out "needs a GPU, to compile for it: torch sees none"; return; }
  command -v ninja > /dev/null && generator=(-G Ninja)
  cmake -S . -B "$out/build" "${generator[@]}" -DGAF_CUDA=ON -DGAF_CUDA_ARCHITECTURES="$architecture-real" \
    -DPython_EXECUTABLE="$(command -v "$PYTHON")" -Dpybind11_DIR="$("$PYTHON" -m pybind11 --cmakedir)" &&
    cmake --build "$out/build" -j "$(nproc)" && cmake --install "$out/build" --prefix python
}

# The name by which a peer is imported.
module_of() {
  case $(basename "$1") in
    gsplat*) echo gsplat ;;
    fused[-_]ssim*) echo fused_ssim ;;
    nvdiffrast*) echo nvdiffrast ;;
    *) basename "$1" ;;
  esac
}
drop_peer() { echo "$1: $2" | tee -a "$GAFCORE_PEERS_LEFT_OUT"; }

install_peer() {
  local module log
  module=$(module_of "$1")
  log="$out/peer_$module.log"
  timeout -k 10 240 "$PYTHON" -m pip install --quiet --no-index --no-deps --no-build-isolation --upgrade --target "$out/peers.$module" "$1" > "$log" 2>&1
  case $? in
    0) ;;
    124 | 137) drop_peer "$module" "did not build in 240 s" ;;
    *) drop_peer "$module" "did not install: $(grep -v '^ *$' "$log" | tail -n 1)" ;;
  esac
}

part_peers() {
  [ -d "$PEERS" ] || { left_out "needs PEERS, a folder of wheels or source trees: named is \"$PEERS\""; return; }
  program nvcc || return
  TORCH_CUDA_ARCH_LIST=$(capability '%d.%d') || { left_out "needs a GPU, to compile for it: torch sees none"; return; }
  export TORCH_CUDA_ARCH_LIST MAX_JOBS
  MAX_JOBS=$(nproc)
  rm -rf "$GAFCORE_PEERS_LEFT_OUT" "$out/peers" "$out"/peers.* "$TORCH_EXTENSIONS_DIR" # a build that was killed leaves a lock that the next waits for
  local peer
  for peer in "$PEERS"/*; do install_peer "$peer" & done
  wait
  mkdir -p "$out/peers"
  for peer in "$out"/peers.*; do [ ! -d "$peer" ] || cp -r "$peer/." "$out/peers"; done
  if "$PYTHON" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("gsplat") is None)'; then # it compiles when it is first used
    timeout -k 10 260 "$PYTHON" -c 'from gsplat.cuda._backend import _C; assert _C is not None' > "$out/peer_gsplat.log" 2>&1
    case $? in
      0) ;;
      124 | 137) drop_peer gsplat "did not compile itself in 260 s" ;;
      *) drop_peer gsplat "did not compile itself: $(grep -v '^ *$' "$out/peer_gsplat.log" | tail -n 1)" ;;
    esac
  fi
  echo "peers: $(cd "$out/peers" && ls -d gsplat fused_ssim nvdiffrast 2> /dev/null | tr '\n' ' ')"
}

part_test() {
  kernels && needs pytest hypothesis skimage av plyfile safetensors scipy PIL rich || return
  local parallel=()
  "$PYTHON" -c 'import xdist' 2> /dev/null && parallel=(-n 6)
  "$PYTHON" -m pytest -m gpu tests/gpu tests/ops tests/attention tests/test_render.py -p no:cacheprovider -rs "${parallel[@]}" --junitxml "$out/tests.xml"
}

sanitize() {
  program compute-sanitizer || return
  kernels || return
  compute-sanitizer --tool "$1" --error-exitcode 9 --log-file "$out/sanitize_$1.txt" "$PYTHON" -m benchmarks.gpu.small_scenes
  local code=$?
  "$PYTHON" -m benchmarks.gpu.sanitized "$1" $code "$out/sanitize_$1.txt" --out "$out/sanitize_$1.json"
  return $code
}
part_memcheck() { sanitize memcheck; }
part_racecheck() { sanitize racecheck; }
part_initcheck() { sanitize initcheck; }
part_synccheck() {
  sanitize synccheck
  local code=$?
  [ $code -ne 9 ] || { echo "synccheck objects; reported only"; return 0; }
  return $code
}

part_ops() { kernels && "$PYTHON" -m benchmarks.gpu.suites ops --out "$out/ops.json"; }
part_rasterize() { kernels && "$PYTHON" -m benchmarks.gpu.suites rasterize --out "$out/rasterize.json"; }
part_scale() { kernels && "$PYTHON" -m benchmarks.gpu.suites scale --out "$out/scale.json"; }
part_fit() { kernels && needs plyfile safetensors scipy PIL rich && "$PYTHON" -m benchmarks.gpu.fit --out "$out/fit.json"; }
part_profile() { kernels && "$PYTHON" -m benchmarks.gpu.profile --out "$out/profile.json"; }
part_ncu() {
  program ncu || return
  kernels || return
  ncu --clock-control none --set detailed --kernel-name "regex:$("$PYTHON" -m benchmarks.gpu.kernels)" --csv --page details \
    "$PYTHON" -m benchmarks.gpu.profile --once > "$out/ncu.csv" || {
    grep -q ERR_NVGPUCTRPERM "$out/ncu.csv" && { left_out "needs permission to read the GPU's counters (ERR_NVGPUCTRPERM)"; return; }
    tail -n 3 "$out/ncu.csv"
    return 1
  }
  "$PYTHON" -m benchmarks.gpu.counters "$out/ncu.csv" --out "$out/ncu.json"
}
part_attention() { kernels && needs pytest pytest_benchmark triton && "$PYTHON" -m benchmarks.gpu.attention --out "$out/attention.json"; }
part_diffusion() { kernels && needs diffusers transformers accelerate plyfile safetensors && "$PYTHON" -m benchmarks.gpu.diffusion --out "$out/diffusion.json"; }
part_report() { "$PYTHON" -m benchmarks.gpu.report "$out"; }

# A part in a process of its own, so that it can be ended: `gpu.sh OUT_DIR --one PART`.
[ "${1:-}" != --one ] || { "part_$2"; exit; }

asked=" ${*:-${ALL[*]:1}} "
asked=${asked/ sanitize / memcheck racecheck initcheck synccheck }
for part in $asked; do
  declare -F "part_$part" > /dev/null || { echo "gpu.sh: no part $part; there are ${ALL[*]}, and sanitize for the four checks" >&2; exit 2; }
done
failed=0
for part in "${ALL[@]}"; do
  [[ $asked == *" $part "* ]] || continue
  printf '\n== %s\n' "$part"
  start=$SECONDS
  timeout -k 10 "${LIMIT:-530}" bash "$root/benchmarks/gpu.sh" "$out" --one "$part" 2>&1 | tee "$out/$part.log"
  code=${PIPESTATUS[0]}
  why=""
  case $code in
    0) outcome=passed ;;
    $LEFT_OUT) outcome="left out" ;;
    124 | 137) outcome="cut off" why="did not end in ${LIMIT:-530} s" failed=1 ;;
    *) outcome=failed failed=1 ;;
  esac
  [ $code -eq 0 ] || why=${why:-$(grep -v '^ *$' "$out/$part.log" | tail -n 1)}
  "$PYTHON" -c 'import json, sys; keys = ("part", "outcome", "exit_status", "seconds", "why"); print(json.dumps(dict(zip(keys, [*sys.argv[1:3], *map(int, sys.argv[3:5]), sys.argv[5]]))))' \
    "$part" "$outcome" $code $((SECONDS - start)) "$why" > "$out/part_$part.json"
  [ $code -eq 0 ] || echo "gpu.sh: $part $outcome ($code): $why"
done
exit $failed
