#!/usr/bin/env bash
# What can be learnt of Prospect on a machine with a GPU:
#
#   bash run.sh [tests] [rows] [tight] [attention] [least] [context] [speed] [resume] [sanitizer]
#                                        all of it, or some
#
# Results go to results/ beside this file; a summary is printed. PROSPECT_CUBLASLT names the folder of cuBLASLt where it is
# not found by itself; WORK is where checkpoints are written (up to 20 GB), /tmp/prospect as a rule.
set -uo pipefail
cd "$(dirname "$0")"
here=$PWD
work=${WORK:-/tmp/prospect}
mkdir -p results "$work"

model() { # shape
    if [ ! -e "$work/$1/config.json" ]; then ./xtask random-model --shape "$1" --tokenizer tokenizer "$work/$1"; fi
}

# What one run came to: rated tokens a second (harmonic mean after the first four steps), GiB of the arena, the policy.
train() { # name, shape, settings...
    local name=$1 shape=$2
    shift 2
    model "$shape"
    rm -rf "$work/run"
    local start=$SECONDS
    ./prospect train kto.toml --set output="$work/run" --set model.path="$work/$shape" "$@" >"results/$name.out" 2>"results/$name.err"
    local rc=$?
    cp "$work/run/metrics.jsonl" "results/$name.metrics.jsonl" 2>/dev/null
    local rate peak policy
    rate=$(sed -n 's/^step.* \([0-9,.]*\) tokens\/s.*/\1/p' "results/$name.err" | tr -d , | tail -n +5 |
        awk '{ s += 1 / $1; n++ } END { if (n) printf "%.0f", n / s }')
    peak=$(sed -n 's/.*"peak_bytes": \([0-9]*\).*/\1/p' "$work/run/summary.json" 2>/dev/null | tail -1 |
        awk '{ printf "%.2f", $1 / 2^30 }')
    policy=$(sed -n 's/^policy: //p' "results/$name.err")
    echo "$name: rc $rc, ${rate:-no} tokens/s, ${peak:-no} GiB, $((SECONDS - start)) s; $policy"
    if [ $rc != 0 ]; then tail -3 "results/$name.err"; fi
}

rows() { # name suffix, settings...
    local suffix=$1
    shift
    train "1b-natural$suffix" 1b "$@"
    train "3b-natural$suffix" 3b "$@"
    train "7b-natural$suffix" 7b "$@"
    train "7b-fixed$suffix" 7b --set data.train=data/fixed.jsonl --set data.max_length=1024 "$@"
    train "7b-hh$suffix" 7b --set data.train=data/hh.jsonl --set train.batch_size=16 "$@"
    train "13b-natural$suffix" 13b "$@"
}

do_tests() {
    echo "== kernels and whole steps against the CPU"
    PROSPECT_GPU_TESTS=1 ./engine-tests cuda >results/engine-tests.txt 2>&1
    tail -3 results/engine-tests.txt
    mkdir -p crates/train crates/models
    CARGO_MANIFEST_DIR=$here/crates/models PROSPECT_GPU_TESTS=1 ./model-tests cuda >results/model-tests.txt 2>&1
    tail -3 results/model-tests.txt
    CARGO_MANIFEST_DIR=$here/crates/train PROSPECT_GPU_TESTS=1 ./run-tests cuda >results/run-tests.txt 2>&1
    tail -3 results/run-tests.txt
}
do_rows() {
    echo "== memory to spare"
    rows ""
}
do_tight() {
    echo "== the arena within nine tenths of what Unsloth's peak was (2.8, 4.2, 6.5, 5.3, 6.6, 10.3 GiB, and what CUDA holds outside)"
    train 1b-natural-tight 1b --set train.memory_limit=3.5GiB
    train 3b-natural-tight 3b --set train.memory_limit=4.9GiB
    train 7b-natural-tight 7b --set train.memory_limit=7.2GiB
    train 7b-fixed-tight 7b --set data.train=data/fixed.jsonl --set data.max_length=1024 --set train.memory_limit=6GiB
    train 7b-hh-tight 7b --set data.train=data/hh.jsonl --set train.batch_size=16 --set train.memory_limit=7.3GiB
    train 13b-natural-tight 13b --set train.memory_limit=11GiB
}
do_attention() {
    echo "== flash against standard attention"
    for length in 1024 2048 8192; do
        awk -v n=$((length / 2)) 'BEGIN { for (i = 0; i < 96; i++) { p = ""; c = ""; for (j = 0; j < n * 0.95; j++) { p = p " a"; c = c " b" }
            printf "{\"prompt\": \"%d%s\", \"completion\": \"%s\", \"label\": %s}\n", i, p, c, i % 2 ? "true" : "false" } }' >"$work/length.jsonl"
        for kernel in flash standard; do
            train "8b-$length-$kernel" 8b --set data.train="$work/length.jsonl" --set data.max_length=$length \
                --set train.attention=$kernel --set train.batch_size=$((16384 / length)) --set train.max_steps=8
        done
    done
}
do_least() {
    echo "== 2,048-token examples in as little memory as there is"
    awk 'BEGIN { for (i = 0; i < 64; i++) { p = ""; c = ""; for (j = 0; j < 1000; j++) { p = p " a"; c = c " b" }
        printf "{\"prompt\": \"%d%s\", \"completion\": \"%s\", \"label\": %s}\n", i, p, c, i % 2 ? "true" : "false" } }' >"$work/long.jsonl"
    for shape in 3b 7b 13b 20b 32b; do
        model $shape
        settings=(--set data.train="$work/long.jsonl" --set train.batch_size=2 --set train.max_steps=6 --set train.token_budget=1)
        least=$(./prospect plan kto.toml --json --set model.path="$work/$shape" "${settings[@]}" --set train.memory_limit=1GiB |
            sed -n 's/^ *"peak_bytes": \([0-9]*\).*/\1/p' | head -1)
        # What CUDA holds outside the arena comes on top.
        train "$shape-least" $shape "${settings[@]}" --set train.memory_limit=$((least + 5 * 256 * 1024 * 1024))
        train "$shape-24GiB" $shape --set data.train="$work/long.jsonl" --set train.max_steps=6 --set train.memory_limit=24GiB
        if [ $shape = 13b ] || [ $shape = 20b ]; then rm -rf "${work:?}/$shape"; fi
    done
}
do_context() {
    echo "== one long example on 24 GiB: Llama 3.1 8B's shape, r = 32"
    for objective in sft kto; do
        # What is imitated has no label.
        awk -v rated=$([ $objective = kto ] && echo 1 || echo 0) 'BEGIN { for (i = 0; i < 4; i++) { c = ""; for (j = 0; j < 120000; j++) c = c " b"
            printf "{\"prompt\": \"%d\", \"completion\": \"%s\"%s}\n", i, c, rated ? ", \"label\": " (i % 2 ? "true" : "false") : "" } }' >"$work/context.jsonl"
        train "8b-100k-$objective" 8b --set objective.name=$objective \
            --set data.train="$work/context.jsonl" --set data.max_length=100000 --set adapter.r=32 --set train.max_steps=$([ $objective = sft ] && echo 2 || echo 1) \
            --set train.batch_size=$([ $objective = sft ] && echo 1 || echo 2) --set train.memory_limit=24GiB
    done
}
do_speed() {
    echo "== products and attention alone"
    ./engine-tests --ignored --nocapture --test-threads=1 speed_of >results/speed.txt 2>&1
    if python3 -c "import torch" 2>/dev/null; then python3 flash_attention.py >>results/speed.txt 2>&1; fi
    grep -v "^test \|^running\|^$" results/speed.txt
}
do_resume() {
    echo "== killed in the middle and resumed: the same bytes?"
    model 1b
    local settings=(--set model.path="$work/1b" --set train.save_every=5 --set train.max_steps=15)
    rm -rf "$work/whole" "$work/killed"
    ./prospect train kto.toml --set output="$work/whole" "${settings[@]}" >results/resume.txt 2>&1
    ./prospect train kto.toml --set output="$work/killed" "${settings[@]}" >>results/resume.txt 2>&1 &
    local program=$!
    for _ in $(seq 600); do
        if [ "$(wc -l 2>/dev/null <"$work/killed/metrics.jsonl" || echo 0)" -ge 8 ]; then break; fi
        sleep 0.05
    done
    kill -9 $program
    wait $program 2>/dev/null
    echo "killed after $(wc -l <"$work/killed/metrics.jsonl") steps, with $(cd "$work/killed" && echo checkpoint-*)"
    ./prospect train kto.toml --resume --set output="$work/killed" "${settings[@]}" >>results/resume.txt 2>&1
    if cmp "$work/whole/adapter/adapter_model.safetensors" "$work/killed/adapter/adapter_model.safetensors"; then
        echo "the same adapter, byte for byte"
    fi
}
do_sanitizer() {
    echo "== compute-sanitizer over the tests of kernels"
    for tool in memcheck racecheck; do
        PROSPECT_GPU_TESTS=1 timeout "${SANITIZER_SECONDS:-600}" compute-sanitizer --tool $tool --print-limit 20 \
            ./engine-tests --test-threads=1 on_cuda >"results/$tool.txt" 2>&1
        echo "$tool: rc $?"
        grep "ERROR SUMMARY\|RACECHECK SUMMARY\|^test result" "results/$tool.txt"
    done
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
./prospect --version
for part in ${*:-tests rows tight attention least context speed resume sanitizer}; do "do_$part"; done
