#!/bin/sh
# All that is measured on an NVIDIA GPU, in one go: latency before and after in float32 and float16, and the check on
# CUDA. On a machine without one it runs on the CPU, and says that the rows of CUDA are left out.
#
#   benchmarks/cuda.sh [PYTHON] [arguments of benchmarks/cuda.py]
set -eu
python=${1:-python}
[ $# -eq 0 ] || shift
cd "$(dirname "$0")/.."
if command -v nvidia-smi >/dev/null 2>&1; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
else
    echo "no nvidia-smi: no NVIDIA GPU here"
fi
exec "$python" benchmarks/cuda.py "$@"
