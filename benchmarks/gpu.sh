#!/usr/bin/env bash
# Everything a GPU is asked to prove, on a bare machine with Python, torch and nvcc and without network:
#
#   benchmarks/gpu.sh OUT_DIR [PART ...]
#
# Parts, each under nine minutes, in this order where none is named:
#   build       compile for this card into OUT_DIR/build and put the module into python/gafcore/native
#   peers       install the peers that PEERS holds
#   test        pytest -m gpu
#   sanitize    compute-sanitizer memcheck, racecheck, initcheck on the small scenes
#   ops         every op but the rasterizer: medians, spread, memory, share of the memory bandwidth
#   rasterize   the rasterizer: 10-300 k Gaussians, three sizes, SH 0 and 3, batches
#   scale       frames and training steps a second, peak memory
#   fit         6,000 iterations of a fit at 512x512, with and without graphs: seconds, memory, quality
#   profile     device time kernel by kernel; hardware counters where ncu can read them
#   attention   multiview_attention beside every SDPA backend, by graph replays
#   diffusion   the full-size prior with random weights: memory and time of a refresh
#   report      OUT_DIR/report.md from the JSON files of the parts that ran
#
# Environment: PYTHON (python3); PEERS, a folder of wheels or source trees of peers (gsplat, fused_ssim, ...), installed without network into
# OUT_DIR/peers and left out where they do not build. Nothing is estimated: a part that cannot run says so in the report.
set -uo pipefail
[ $# -ge 1 ] || { sed -n '2,21p' "$0"; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(build peers test sanitize ops rasterize scale fit profile attention diffusion report)
PYTHON=${PYTHON:-python3}
cd "$root"
export PYTHONPATH="$root/python:$root:$out/peers${PYTHONPATH:+:$PYTHONPATH}"
failed=0

architecture() { "$PYTHON" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())'; }

part_build() {
  local pybind
  pybind=$("$PYTHON" -m pybind11 --cmakedir) || { echo "pybind11 is needed to build: pip install pybind11"; return 1; }
  cmake -S . -B "$out/build" -DGAF_CUDA=ON -DGAF_CUDA_ARCHITECTURES="$(architecture)-real" \
    -DPython_EXECUTABLE="$(command -v "$PYTHON")" -Dpybind11_DIR="$pybind" &&
    cmake --build "$out/build" -j "$(nproc)" && cmake --install "$out/build" --prefix python
}

part_peers() {
  [ -d "${PEERS:-}" ] || { echo "PEERS names no folder: no peers"; return 0; }
  export TORCH_CUDA_ARCH_LIST MAX_JOBS
  TORCH_CUDA_ARCH_LIST=$("$PYTHON" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')
  MAX_JOBS=$(nproc)
  local peer name
  for peer in "$PEERS"/*; do
    name=$(basename "$peer")
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-build-isolation --target "$out/peers.$name" "$peer" ||
      echo "peer $name could not be installed" | tee -a "$out/peers_left_out.txt" &
  done
  wait
  mkdir -p "$out/peers" && cp -r "$out"/peers.*/. "$out/peers"
  "$PYTHON" -c 'import importlib.util; importlib.util.find_spec("gsplat") and __import__("gsplat.cuda._backend")'  # compiles itself
}

part_test() {
  local parallel=()
  "$PYTHON" -c 'import xdist' 2> /dev/null && parallel=(-n 6)
  "$PYTHON" -m pytest -m gpu tests/gpu tests/ops tests/attention tests/test_render.py -p no:cacheprovider -rs "${parallel[@]}" --junitxml "$out/tests.xml"
}

part_sanitize() {
  command -v compute-sanitizer > /dev/null || { echo "no compute-sanitizer on PATH"; return 1; }
  local tool status=0
  for tool in memcheck racecheck initcheck; do
    timeout 180 compute-sanitizer --tool "$tool" --error-exitcode 9 --log-file "$out/sanitize_$tool.txt" \
      "$PYTHON" -m benchmarks.gpu.small_scenes
    local code=$?
    echo "{\"tool\": \"$tool\", \"exit_status\": $code}" > "$out/sanitize_$tool.json"
    [ $code -eq 0 ] || status=1
  done
  return $status
}

part_ops() { "$PYTHON" -m benchmarks.gpu.suites ops --out "$out/ops.json"; }
part_rasterize() { "$PYTHON" -m benchmarks.gpu.suites rasterize --out "$out/rasterize.json"; }
part_scale() { "$PYTHON" -m benchmarks.gpu.suites scale --out "$out/scale.json"; }
part_fit() { timeout 480 "$PYTHON" -m benchmarks.gpu.fit --out "$out/fit.json"; }
part_profile() {
  "$PYTHON" -m benchmarks.gpu.profile --out "$out/profile.json" || return 1
  [ "${NCU:-1}" = 1 ] || return 0
  command -v ncu > /dev/null || { echo "no ncu on PATH: no hardware counters"; return 0; }
  timeout 150 ncu --clock-control none --set detailed --kernel-name 'regex:blend|project|emit|photometric|ssim|loss|draw|setup|resolve' \
    --launch-skip 0 --csv --page details "$PYTHON" -m benchmarks.gpu.profile --once > "$out/ncu.csv" || { echo "ncu failed"; return 1; }
}
part_attention() { "$PYTHON" -m pytest benchmarks/bench_attention.py -p no:cacheprovider -s --benchmark-json "$out/attention.json"; }
part_diffusion() { "$PYTHON" -m benchmarks.gpu.diffusion --out "$out/diffusion.json"; }
part_report() { "$PYTHON" -m benchmarks.gpu.report "$out"; }

for part in "${parts[@]}"; do
  declare -F "part_$part" > /dev/null || { echo "gpu.sh: no part $part" >&2; exit 2; }
  printf '\n== %s\n' "$part"
  start=$SECONDS
  (set -o pipefail; "part_$part" 2>&1 | tee "$out/$part.log")
  code=$?
  echo "{\"part\": \"$part\", \"exit_status\": $code, \"seconds\": $((SECONDS - start))}" > "$out/part_$part.json"
  [ $code -eq 0 ] || { failed=1; echo "gpu.sh: $part failed ($code), see $out/$part.log"; }
done
exit $failed
