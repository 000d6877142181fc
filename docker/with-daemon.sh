#!/usr/bin/env bash
# Runs a command with a Docker daemon: the one that runs already, or, as root, one of its own, which ends with the command.
# Where none can be had it says so, loudly, and ends with 0: there is nothing to be tested then.
set -euo pipefail

answers() { docker info >/dev/null 2>&1; }

give_up() {
  echo "== SKIPPED: $1. The images and their tests were NOT run." >&2
  exit 0
}

if ! answers; then
  [ "$(id -u)" = 0 ] || give_up "no Docker daemon answers, and only root can start one"
  if ! command -v dockerd >/dev/null || ! command -v mmdebstrap >/dev/null; then
    command -v apt-get >/dev/null || give_up "dockerd is not installed, and there is no apt-get"
    echo "== setup: docker.io and mmdebstrap (apt-get)" >&2
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends docker.io mmdebstrap >/dev/null; } \
      || give_up "docker.io and mmdebstrap could not be installed"
  fi
  log=$(mktemp)
  dockerd >"$log" 2>&1 &
  daemon=$!
  trap '{ kill "$daemon" && wait "$daemon"; } 2>/dev/null || true' EXIT
  for _ in $(seq 300); do
    answers && break
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.1
  done
  answers || give_up "dockerd does not start here: $(tail -1 "$log")"
fi
command -v mmdebstrap >/dev/null || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null \
  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null; }

"$@"
