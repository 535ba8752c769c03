#!/bin/bash
# The shipped prior on a machine with a GPU and many cores, in SECONDS of the clock:
#     scripts/train_small_prior_on_gpu.sh WORK OUT [SECONDS] [DEVICE]
# People are made by all cores but one a training while the networks learn; those already in WORK are kept. OUT gets the prior after each
# network (in parts of 15 MB: cat joins them), the logs, the figures and a sheet. What fails does not take the rest along.
#
# Variables:
#   CONDITION   trainings beside each other on the same people, which share the device: "rig" (default), "pose" (for comparison, without
#               normals and warp), "tuned" (rig, from the weights of INIT at a lower rate). Others than rig carry their name in OUT's files
#   DIFFUSION   those of them that go on to diffusion; default: all
#   INIT        a prior that "tuned" starts from; default: the shipped one
#   PEOPLE, FIRST                most people to learn from; how many must be there to begin
#   SHARES      hundredths of SECONDS at which regression, people and diffusion end; default "53 78 83"
#   OPTIONS, PEOPLE_OPTIONS, EVALUATE    further options of the trainings, of the people, of the evaluation
#   PYTHON      default: python3
set -u
work=$1 out=$2 total=${3:-330} device=${4:-cuda}
begin=$(date +%s)
people=${PEOPLE:-12000} first=${FIRST:-256} options=${OPTIONS:-}
names=${CONDITION:-rig}
diffusion=" ${DIFFUSION-$names} "
init=${INIT:-shipped}
read -r regression_end people_end diffusion_end <<<"${SHARES:-53 78 83}"
for name in $names; do
    case $name in rig | pose | tuned) ;; *) echo "CONDITION: must name rig, pose, tuned, got '$name'" >&2 && exit 2 ;; esac
done
workers=$(($(nproc) - $(wc -w <<<"$names")))
mkdir -p "$work" "$out"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
train="$python scripts/train_small_prior.py"

seconds_left() { # until this many hundredths of the time are over
    echo $((total * $1 / 100 - ($(date +%s) - begin)))
}
minutes() { # the same, at least a few seconds
    local left=$((100 * $(seconds_left "$1") / 60))
    left=$((left > 5 ? left : 5))
    printf '%d.%02d' $((left / 100)) $((left % 100))
}

# Below, for each training: its name, its folder, what it adds to the names of files, its options.
export_parts() {
    $train export "$folder" --condition "$condition" --out "$folder/small_prior$suffix.safetensors" &&
        rm -f "$out/small_prior$suffix".part* &&
        split -b 15000000 -d -a 1 "$folder/small_prior$suffix.safetensors" "$out/small_prior$suffix.part"
}
learn() { # stage, hundredths of the time, further options; weights are kept every 20 s, so a run that hangs is worth what it had
    local stage=$1 share=$2 limit
    shift 2
    for graph in --graph --no-graph; do
        limit=$(seconds_left "$share")
        timeout $((limit > 5 ? limit + 20 : 25)) $train "$stage" "$folder" --people-folder "$work" --device "$device" \
            --train-people "$people" --minutes "$(minutes "$share")" --condition "$condition" $from $options "$@" $graph && return
    done
    echo "$stage: failed twice"
}
training() {
    learn regression "$regression_end" --wait-people "$first"
    export_parts & # beside what follows: loading torch takes seconds
    local exporting=$!
    if [[ $diffusion == *" $name "* ]]; then
        learn diffusion "$diffusion_end"
        wait $exporting
        export_parts
    else
        wait $exporting
    fi
    local left made
    left=$(seconds_left 100)
    made=$((32 * $(find "$work" -maxdepth 1 -name 'people_1*.safetensors' | wc -l)))
    made=$((made < people ? made : people))
    timeout $((left > 15 ? left + 15 : 30)) $python scripts/evaluate_small_prior.py "$work" \
        --prior "$folder/small_prior$suffix.safetensors" --device "$device" --json "$out/prior_eval$suffix.json" \
        --sheet "$out/prior_sheet$suffix.png" --train-people $((made < 640 ? made : 640)) ${EVALUATE:-}
}

nice -n 5 $train people "$work" --workers $((workers > 1 ? workers : 1)) --train-people "$people" --minutes "$(minutes "$people_end")" \
    ${PEOPLE_OPTIONS:-} >"$work/people.log" 2>&1 &
maker=$!
{
    trainings=()
    for name in $names; do
        folder=$work/$name suffix=_$name condition=$name from=
        case $name in
            rig) suffix= ;;
            tuned) condition=rig from="--init $init" ;;
        esac
        mkdir -p "$folder"
        training > >(sed -u "s/^/$name: /") 2>&1 &
        trainings+=($!)
    done
    wait "${trainings[@]}"
    kill $maker 2>/dev/null
    tail -n 3 "$work/people.log"
    echo "all of it: $(($(date +%s) - begin)) s, $(du -sh "$work" | cut -f 1) in $work"
} 2>&1 | tee "$out/prior.log"
