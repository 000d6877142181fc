#!/usr/bin/env bash
# Writes docker/locks/*.txt anew: every package of every image, with the hashes of its files. `make locks`
#
# agent-cpu.txt names the CPU build of torch, which is not on the package index: pip must find it by its own
# configuration (find-links or an extra index). agent-cuda.txt is made without that configuration. torch asks for
# setuptools, which compiling its extensions takes and nothing here: it is left out (no --allow-unsafe).
set -euo pipefail
cd "$(dirname "$0")/.."
COMPILE=${1:?the pip-compile to use}
OPTIONS=(--quiet --generate-hashes --strip-extras --no-annotate --no-header --no-emit-index-url
  --no-emit-find-links --no-emit-trusted-host --constraint constraints.txt)

lock() { # NAME ARGUMENT...
  local out=docker/locks/$1.txt && shift
  "$COMPILE" "${OPTIONS[@]}" --output-file "$out" "$@"
  echo "$out: $(grep -c '^[a-z]' "$out") packages"
}

lock agent-cpu --extra agent pyproject.toml
PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS='' PIP_EXTRA_INDEX_URL='' lock agent-cuda --extra agent pyproject.toml
lock coordinator --extra coordinator pyproject.toml
lock evaluation docker/locks/evaluation.in
lock build --allow-unsafe docker/locks/build.in
lock tools --allow-unsafe docker/locks/tools.in
