#!/usr/bin/env bash
# A bundle of wheels for a GPU host that has no network: what requirements/gpu.txt locks, in pieces small enough to carry.
#
#   benchmarks/gpu/bundle.sh OUT [PIECE_MIB] [LOCK]
#
# For CPython 3.12 on Linux x86-64 (PYTHON_VERSION=311 for another). CUDA's own libraries are left out, since such a host
# has them; WITH_CUDA=1 takes them along, some gigabytes. On the host: benchmarks/gpu/host.sh OUT RESULTS.
set -euo pipefail
out=$1; piece_mib=${2:-56}; lock=${3:-requirements/gpu.txt}
leave_out='^nvidia-(cuda|cublas|cudnn|cufft|curand|cusolver|cusparse|nvjitlink|nvrtc)'
[ "${WITH_CUDA:-0}" = 0 ] || leave_out='^$'
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/wheels"
# Of each line of the lock the name and the version; wheels only, since such a host may have no compiler.
sed -nE 's/^([A-Za-z0-9_.-]+)(\[[^]]*\])?==([^ ;\\]+).*/\1==\3/p' "$lock" | grep -vE "$leave_out" > "$work/names"
while read -r name; do
  python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version "${PYTHON_VERSION:-312}" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 --platform any \
    --dest "$work/wheels" "$name" || echo "left out, no such wheel: $name" >&2
done < "$work/names"
tar -C "$work/wheels" -cf - . | xz -T0 -6 > "$work/bundle.tar.xz"
rm -f "$out"/piece-*
split -d -b "${piece_mib}M" "$work/bundle.tar.xz" "$out/piece-"
(cd "$out" && sha256sum piece-* > SHA256SUMS && ls -l)
