# Installs a server lock and extras into /opt/nestvec, and leaves out what no server reads: docker/install_locked.sh cpu parquet
set -eu
server=$1
shift
for lock in "$server" $(printf 'extras/%s ' "$@" | tr ',' ' '); do
  [ "$lock" = extras/ ] || /opt/nestvec/bin/pip install --require-hashes -r "requirements/$lock.txt"
done
# The packages' own tests, and headers and libraries to compile against: 40 MB.
find /opt/nestvec -depth -type d \( -name tests -o -name test -o -path '*/numpy/_core/include' \) -exec rm -r {} +
find /opt/nestvec -type f \( -name '*.a' -o -name '*.pyx' -o -name '*.pyi' -o -name '*.h' \) -delete
