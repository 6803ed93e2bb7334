#!/bin/sh
# Run the GPU tests and the table of times, with what is installed: nothing is fetched.
# Needs a Python >= 3.11 with cupy, numpy, networkx, ml_dtypes and pytest; PYTHON=... chooses it.
# Ends well inside 10 minutes: tests are stopped after LIMIT_S seconds, the table comes last.
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root" || exit 1
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
PYTHONDONTWRITEBYTECODE=1
PYTHONUNBUFFERED=1
CUPY_CACHE_DIR=${CUPY_CACHE_DIR:-/tmp/cupy_kernels}
export PYTHONPATH PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED CUPY_CACHE_DIR
limit_s=${LIMIT_S:-400}

python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3 python3.12 python3.13 python3.14 python3.11; do
    if "$candidate" -c 'import cupy, numpy, networkx, ml_dtypes, pytest' 2>/dev/null; then
      python=$candidate
      break
    fi
  done
fi
if [ -z "$python" ]; then
  echo "run_on_device: no Python here has cupy, numpy, networkx, ml_dtypes and pytest" >&2
  exit 1
fi
"$python" - <<'EOF'
import sys, cupy, numpy
print("Python", sys.version.split()[0], "CuPy", cupy.__version__, "NumPy", numpy.__version__)
EOF

# Most of the time goes into compiling kernels, so many processes help.
many=
if "$python" -c 'import xdist' 2>/dev/null; then many="-n 8"; fi
# shellcheck disable=SC2086
timeout "$limit_s" "$python" -m pytest tests/gpu -q -p no:cacheprovider -c pyproject.toml \
  --rootdir="$root" --confcutdir="$root/tests/gpu" -W default --tb=short --maxfail=60 \
  ${many:--p no:xdist} "$@"
status=$?
[ "$status" = 124 ] && echo "run_on_device: the tests were stopped after $limit_s s"

timeout 150 "$python" -W ignore -m tests.gpu.timings
exit "$status"
