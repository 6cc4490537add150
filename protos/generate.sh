#!/usr/bin/env bash
# Regenerate the stubs of protos/ into clients/python/src/conductor.
# Usage: protos/generate.sh [FOLDER]   (default: the repository; another one receives the same tree, for comparing)
set -euo pipefail
cd "$(dirname "$0")/.."
root=${1:-.}
export PATH="$PWD/.venv/bin:$PATH"
python protos/third_party.py build/third_party
rm -rf "$root/clients/python/src/conductor"
buf generate --output "$root"
mapfile -t services < <(cd protos && grep -rl '^service ' conductor | LC_ALL=C sort)
python -m grpc_tools.protoc -I protos -I build/third_party --grpc_python_out="$root/clients/python/src" "${services[@]}"
