#!/usr/bin/env bash
# gpu-check on a GPU host that has no network: from a bundle of wheels in pieces, into a venv over the host's own packages.
#
#   benchmarks/gpu/host.sh PIECES OUT [ARGUMENTS OF benchmarks.gpu.check ...]
#
# PIECES holds piece-00, piece-01, … and SHA256SUMS: a tar.xz of wheels of onnxruntime-gpu and of what the host lacks of
# requirements/gpu.txt, made by benchmarks/gpu/bundle.sh. OUT gets the report and the log.
set -euo pipefail
pieces=$1; out=$2; shift 2
work=/tmp/nestvec-gpu
mkdir -p "$work/wheels" "$out"
if [ ! -x "$work/venv/bin/python" ]; then
  (cd "$pieces" && sha256sum --quiet -c SHA256SUMS)
  cat "$pieces"/piece-* | tar -xJf - -C "$work/wheels"
  python3 -m venv --system-site-packages "$work/venv"
  "$work/venv/bin/pip" install --quiet --no-index --no-deps --no-compile "$work"/wheels/*.whl
fi
export PATH="$work/venv/bin:$PATH" NESTVEC_CACHE_DIR="$work/cache" NESTVEC_DATA_DIR="$work/data" NESTVEC_OFFLINE=true PYTHONUNBUFFERED=1
export PYTHONPATH=$PWD/app
python -m nestvec doctor | tee "$out/doctor.txt" || true
python -m benchmarks.gpu.check --out "$out/report.md" "$@" 2>&1 | tee "$out/log.txt"
