#!/usr/bin/env bash
# Runs a command with a Docker daemon: the one that runs already, or, as root, one of its own, which ends with the command.
# Where none can be had it says so, loudly, and ends with 0: there is nothing to be tested then.
set -euo pipefail

packages="docker.io mmdebstrap busybox-static docker-registry"  # the daemon, base images, and what tests stand in with

answers() { docker info >/dev/null 2>&1; }

# Whether all of them are there, or can be had.
install() {
  local tool missing=0
  for tool in dockerd mmdebstrap busybox docker-registry; do command -v "$tool" >/dev/null || missing=1; done
  [ "$missing" = 0 ] && return
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  echo "== setup: $packages (apt-get)" >&2
  # shellcheck disable=SC2086 - several words
  apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages >/dev/null
}

give_up() {
  echo "== SKIPPED: $1. The images and their tests were NOT run." >&2
  exit 0
}

if ! answers; then
  [ "$(id -u)" = 0 ] || give_up "no Docker daemon answers, and only root can start one"
  install || give_up "$packages could not be installed"
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
install || echo "== not all of $packages could be installed: some tests are skipped" >&2

"$@"
