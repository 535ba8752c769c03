#!/bin/bash
# The shipped prior on a machine with a GPU and many cores, in SECONDS of the clock:
#     scripts/train_small_prior_on_gpu.sh WORK OUT [SECONDS] [DEVICE]
# People are made by all cores but one while the networks learn. OUT gets the prior after each network (in parts of 15 MB: cat joins them),
# the logs, the figures and a sheet. What fails does not take the rest along.
set -u
work=$1 out=$2 total=${3:-330} device=${4:-cuda}
begin=$(date +%s)
people=${PEOPLE:-12000} first=${FIRST:-256} options=${OPTIONS:-}
condition=${CONDITION:-rig} # "pose": for comparison, without normals and warp
cores=$(nproc)
mkdir -p "$work" "$out"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive PYTHONUNBUFFERED=1
train="python3 scripts/train_small_prior.py"

minutes() { # until this many hundredths of the time are over
    local left=$(((total * $1 - 100 * ($(date +%s) - begin)) / 60))
    left=$((left > 5 ? left : 5))
    printf '%d.%02d' $((left / 100)) $((left % 100))
}
export_parts() {
    $train export "$work" --condition "$condition" --out "$work/small_prior.safetensors" && rm -f "$out"/small_prior.part* &&
        split -b 15000000 -d -a 1 "$work/small_prior.safetensors" "$out/small_prior.part"
}

nice -n 5 $train people "$work" --workers $((cores > 1 ? cores - 1 : 1)) --train-people "$people" --minutes "$(minutes 78)" \
    >"$work/people.log" 2>&1 &
maker=$!
learn() { # stage, hundredths of the time, further options; weights are kept every 20 s, so a run that hangs is worth what it had
    local stage=$1 share=$2 limit
    shift 2
    for graph in --graph --no-graph; do
        limit=$((total * share / 100 - ($(date +%s) - begin)))
        timeout $((limit > 5 ? limit + 20 : 25)) $train "$stage" "$work" --device "$device" --train-people "$people" \
            --minutes "$(minutes "$share")" --condition "$condition" $options "$@" $graph && break
    done
}
{
    learn regression 53 --wait-people "$first"
    export_parts
    learn diffusion 83
    export_parts
    kill $maker 2>/dev/null
    tail -n 3 "$work/people.log"
    left=$((total - ($(date +%s) - begin)))
    timeout $((left > 15 ? left + 15 : 30)) python3 scripts/evaluate_small_prior.py "$work" \
        --prior "$work/small_prior.safetensors" --device "$device" --json "$out/prior_eval.json" \
        --sheet "$out/prior_sheet.png" ${EVALUATE:-}
    echo "all of it: $(($(date +%s) - begin)) s, $(du -sh "$work" | cut -f 1) in $work"
} 2>&1 | tee "$out/prior.log"
