# Recipes of Thawline; `just` alone lists them. They need Python 3.11 to 3.13 with pip and venv, nothing else.

set shell := ["bash", "-euo", "pipefail", "-c"]
# Arguments reach a command as they were typed, spaces included: "$@" below.
set positional-arguments

# Threads that wait sleep instead of spinning: see docs/architecture.md.
export OMP_WAIT_POLICY := env("OMP_WAIT_POLICY", "PASSIVE")
export OPENBLAS_NUM_THREADS := env("OPENBLAS_NUM_THREADS", "1")

python := env("THAWLINE_PYTHON", "python3")
bin := ".venv/bin"
# The commands print next steps as `just` recipes then.
run := "THAWLINE_STARTED_BY=just " + bin + "/python -m"

# List the recipes.
default:
    @just --list

# Create .venv and install the locked packages, only when the lock or pyproject.toml changed; `just setup cpu` with PyTorch for CPUs.
setup torch="":
    #!/usr/bin/env bash
    set -euo pipefail
    # Remembered, so that `just search` does not bring the other PyTorch back.
    torch=${1:-$(cat .venv/torch 2>/dev/null || echo locked)}
    case "$torch" in
        cpu | locked) ;;
        *) echo "setup: which PyTorch must be cpu, or locked (the lock's own, with CUDA's libraries on Linux), got '$torch'" >&2; exit 2 ;;
    esac
    key=$(cat requirements.lock pyproject.toml <(echo "$torch") | sha256sum)
    [ "$(cat .venv/installed 2>/dev/null || true)" = "$key" ] && exit 0
    "{{ python }}" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
        echo "setup: Python 3.11, 3.12 or 3.13 is needed, got $("{{ python }}" --version); name one in THAWLINE_PYTHON" >&2
        exit 2
    }
    offline=()
    [ -d wheelhouse ] && offline=(--no-index --find-links wheelhouse)
    [ "$torch" = locked ] || [ ! -d wheelhouse ] || { echo "setup: wheelhouse/ holds the lock's own PyTorch, got 'cpu'; take locked" >&2; exit 2; }
    [ -x {{ bin }}/python ] || "{{ python }}" -m venv .venv
    locked=$(mktemp -d)
    trap 'rm -rf "$locked"' EXIT
    awk '/^[a-z]/ { on = /^uv==/ } on' requirements.lock > "$locked/uv.txt"
    {{ bin }}/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps "${offline[@]}" -r "$locked/uv.txt"
    if [ "$torch" = cpu ]; then
        awk '/^[a-z]/ { on = !/^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/ } on' requirements.lock > "$locked/packages.txt"
        mapfile -t networks < <(grep -oE '^(torch|torchvision)==[^ ]+' requirements.lock)
    else
        cp requirements.lock "$locked/packages.txt"
    fi
    {{ bin }}/uv pip sync --quiet --compile-bytecode --python {{ bin }}/python --require-hashes "${offline[@]}" "$locked/packages.txt"
    # Their own index has no hashes in the lock; uv knows where it is.
    [ "$torch" = locked ] || {{ bin }}/uv pip install --quiet --compile-bytecode --python {{ bin }}/python --no-deps --torch-backend cpu "${networks[@]}"
    {{ bin }}/uv pip install --quiet --python {{ bin }}/python --no-deps --no-build-isolation "${offline[@]}" --editable .
    {{ bin }}/python -m compileall -q explain lightning_modules search
    echo "$torch" > .venv/torch
    echo "$key" > .venv/installed

# Look at images before anything is trained: `just look IMAGES`.
look *arguments: setup
    @{{ run }} search.look "$@"

# Search: `just search`, or with any settings, as in `just search data=folder data.path=IMAGES`.
search *settings: setup
    @{{ run }} search "$@"

# Predict images with the champion: `just predict images=FOLDER to=predictions.csv`.
predict *arguments: setup
    @{{ run }} search.predict "$@"

# What each block of a model looks at: `just explain images=FOLDER`.
explain *arguments: setup
    @{{ run }} explain "$@"

# Export a model: `just export images=FOLDER format=onnx`.
export *arguments: setup
    @{{ run }} search.export "$@"

# Retrain with the months that have arrived: `just retrain data=folder data.path=IMAGES`.
retrain *arguments: setup
    @{{ run }} search.retrain "$@"

# Retrain by a schedule: `just schedule "cron='0 3 2 * *'" data=folder data.path=IMAGES`.
schedule *arguments: setup
    @{{ run }} search.schedule "$@"

# Open MLflow's UI on 127.0.0.1.
ui *arguments: setup
    @{{ run }} search.ui "$@"

# The report of a study: `just report study=NAME`.
report *arguments: setup
    @{{ run }} search.report "$@"

# Fast tests (6 to 8 minutes on two cores; no data, browser or server needed).
test *arguments: setup
    {{ bin }}/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow" -q "$@"

# Slow tests (about 12 minutes on two cores; real images from ../shared/data where they are).
test-slow *arguments: setup
    {{ bin }}/python -m pytest -n 2 --dist loadfile -m "slow and not long" -q "$@"

# Fast tests again under other instruction sets than the processor's own: what is reached by training differs there.
test-processors *arguments: setup
    #!/usr/bin/env bash
    set -euo pipefail
    flags=" $(grep -m1 '^flags' /proc/cpuinfo || true) "
    failed=()
    # One line: what the processor must have; then how PyTorch, oneDNN, MKL and OpenBLAS call it.
    while read -r flag aten onednn mkl openblas; do
        if [[ "$flags" != *" $flag "* ]]; then
            echo "test-processors: $aten left out, this processor has no $flag"
            continue
        fi
        echo "test-processors: $aten"
        ATEN_CPU_CAPABILITY=$aten ONEDNN_MAX_CPU_ISA=$onednn MKL_ENABLE_INSTRUCTIONS=$mkl OPENBLAS_CORETYPE=$openblas \
            {{ bin }}/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow" -q "$@" < /dev/null || failed+=("$aten")
    done <<'SETS'
    sse4_1 default SSE41 SSE4_2 Nehalem
    avx2 avx2 AVX2 AVX2 Haswell
    avx512bw avx512 AVX512_CORE AVX512 SkylakeX
    SETS
    [ ${#failed[@]} -eq 0 ] || { echo "test-processors: failed under ${failed[*]}" >&2; exit 1; }

# Install Chromium for the tests that open pages in a real browser (Debian and Ubuntu, as root).
browser:
    command -v chromium > /dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }

# Lint, types, import direction, security lint, no host names and no machine paths.
check: setup
    {{ bin }}/ruff check .
    {{ bin }}/ruff format --check .
    {{ bin }}/mypy
    {{ bin }}/lint-imports --no-cache
    {{ bin }}/bandit --quiet --configfile pyproject.toml --recursive explain lightning_modules search
    {{ bin }}/python .ci/check_names.py

# Known vulnerabilities of the locked packages (asks the package index), and bandit; fails where it cannot ask.
audit: setup
    {{ bin }}/bandit --quiet --configfile pyproject.toml --recursive explain lightning_modules search
    {{ bin }}/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict

# Resolve the dependencies anew into requirements.lock.
lock: setup
    {{ bin }}/uv pip compile pyproject.toml --extra dev --extra networks --extra export --extra ray --extra postgresql --universal --python-version 3.11 --generate-hashes --upgrade \
        --no-header --no-emit-index-url --no-emit-find-links --quiet --output-file requirements.lock

# Collect in wheelhouse/ everything a closed network needs to install; `just setup` uses the folder where it exists.
wheelhouse: setup
    {{ python }} -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --dest wheelhouse.new -r requirements.lock
    {{ python }} -m pip download --quiet --disable-pip-version-check --no-deps --dest wheelhouse.new rust-just
    rm -rf wheelhouse && mv wheelhouse.new wheelhouse
    @du -sh wheelhouse

# Speed, as ratios measured in one run each; tables, and rows in benchmarks/results/.
bench *names: setup
    {{ bin }}/python -m benchmarks "$@"

# Long measurements, by hand; results are committed with command and seed. Then the fast tests of other processors.
verify: setup && test-processors
    {{ bin }}/python -m pytest -n 2 --dist loadfile -m long -q
    {{ bin }}/python -m benchmarks.accuracy
    {{ bin }}/python -m tests.faults seed=17 faults=60 write=benchmarks/results/faults.json
    {{ bin }}/python -m tests.faults suite=ray seed=17 faults=20 write=benchmarks/results/ray_faults.json

# The source documents' experiments at small sizes, into docs/results/sources.md: `just experiments`, or `just experiments neu`.
experiments *data: setup
    {{ bin }}/python -m benchmarks.experiments "$@"

# Free the disk of what a search can compute again: `just clean-cache`, or `just clean-cache dry=true`.
clean-cache *arguments: setup
    @{{ run }} search.clean "$@"

# Remove what the recipes made, but not mlruns/.
clean:
    rm -rf .venv wheelhouse wheelhouse.new build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
