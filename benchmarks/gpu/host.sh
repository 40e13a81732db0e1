#!/usr/bin/env bash
# gpu-check on a GPU host that has no network, over the packages of whatever Python is there, a venv's too.
#
#   benchmarks/gpu/host.sh PIECES OUT [ARGUMENTS OF benchmarks.gpu.check ...]
#
# PIECES holds what benchmarks/gpu/bundle.py made. OUT gets the report, what each step found, and the logs. Variables: PYTHON
# (python3), WORK (/tmp/nestvec-gpu), where a second call finds the packages unpacked and the models made.
set -euo pipefail
pieces=$(cd "$1" && pwd); mkdir -p "$2"; out=$(cd "$2" && pwd); shift 2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${PYTHON:-python3}; work=${WORK:-/tmp/nestvec-gpu}; site=$work/site

if [ ! -f "$work/unpacked" ]; then
  wanted=$(cat "$pieces/PYTHON")
  found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  if [ "$found" != "$wanted" ]; then
    echo "the bundle is for Python $wanted, and $python is $found: say PYTHON=python$wanted, or make it with --python $found" >&2
    exit 1
  fi
  (cd "$pieces" && sha256sum --quiet -c SHA256SUMS)
  rm -rf "$site"; mkdir -p "$site"
  if command -v xz > /dev/null; then cat "$pieces"/piece-* | tar -xJf - -C "$site"
  else cat "$pieces"/piece-* | "$python" -c 'import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz").extractall(sys.argv[1])' "$site"
  fi
  touch "$work/unpacked"
fi

# Before the interpreter's own packages, whatever kind of environment that is: a venv over a venv would not see the latter's.
export PYTHONPATH="$site:$root/app:$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export NESTVEC_CACHE_DIR="$work/cache" NESTVEC_DATA_DIR="$work/data" NESTVEC_OFFLINE=true
# Peers look for newer files of a local model too, for as long as their timeouts last.
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
# The server that is measured is on this host, whatever proxy leads elsewhere.
export no_proxy="127.0.0.1,localhost${no_proxy:+,$no_proxy}"
cd "$root"
# What the doctor finds wrong is printed, and the check says what comes of it.
"$python" -m nestvec doctor --provider cuda 2>&1 | tee "$out/doctor.txt" || true
exec "$python" -m benchmarks.gpu.check --out "$out" --work "$work/check" "$@"
