#!/usr/bin/env bash
# The contract's checks: lint, no breaking change against the releases, stubs that match the protos.
# A release adds its contract: buf build protos --as-file-descriptor-set --exclude-imports --exclude-source-info \
#   -o protos/released/vX.Y.Z.binpb
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
python protos/third_party.py build/third_party

buf lint

buf build protos --as-file-descriptor-set -o "$fresh/current.binpb"
for released in protos/released/*.binpb; do
  python protos/with_imports.py "$released" "$fresh/current.binpb" "$fresh/released.binpb"
  buf breaking protos --against "$fresh/released.binpb"
done

protos/generate.sh "$fresh"
if ! diff -r --exclude=__pycache__ clients/python/src/conductor "$fresh/clients/python/src/conductor"; then
  echo "The stubs differ from the protos: run 'make gen' and commit." >&2
  exit 1
fi
echo "contract: lint, compatibility and stubs are in order"
