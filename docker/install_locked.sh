# Installs the lock of a server, and those of extras (with commas or spaces between them), into the image's venv, and
# leaves out what no server reads:   docker/install_locked.sh cpu parquet,quality
set -eu
venv=${VENV:-/opt/nestvec}
"$venv/bin/pip" install --require-hashes -r "requirements/$1.txt"
shift
for extra in $(echo "$*" | tr ',' ' '); do
  "$venv/bin/pip" install --require-hashes -r "requirements/extras/$extra.txt"
done
# The packages' own tests, and headers and libraries to compile against: 40 MB.
find "$venv" -depth -type d \( -name tests -o -name test -o -path '*/numpy/_core/include' \) -exec rm -r {} +
find "$venv" -type f \( -name '*.a' -o -name '*.pyx' -o -name '*.pyi' -o -name '*.h' \) -delete
