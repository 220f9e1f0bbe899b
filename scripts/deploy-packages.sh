#!/usr/bin/env bash
# What the tests of containers need beyond Python, as root on Debian: Docker Engine, Compose, nginx, and the base image.
# Says on standard error what can't be had, and ends with 1 then; the tests tell the same as their reason to skip.
set -euo pipefail
BASE=debian:bookworm-slim

fail() {
    echo "containers are not tested: $1" >&2
    exit 1
}

missing=()
command -v dockerd >/dev/null || missing+=(docker.io)
command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1 || missing+=(docker-compose)
command -v nginx >/dev/null || missing+=(nginx-light)
command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
if ! docker info >/dev/null 2>&1 || [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || fail "no Docker daemon for this user, or ${missing[*]:-nothing} missing; root would install and start them"
fi
if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || fail "needs ${missing[*]}, and here is no apt-get"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # A package that starts a service would take the port that a test, or a user, wants.
    policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && trap 'rm -f "$policy"' EXIT; }
    apt-get install -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
if ! docker info >/dev/null 2>&1; then
    log=/var/log/dockerd.log
    # In a session of its own: it stays when this script has ended.
    setsid dockerd --storage-driver=overlay2 >"$log" 2>&1 </dev/null &
    for _ in $(seq 60); do
        docker info >/dev/null 2>&1 && break
        sleep 1
    done
    docker info >/dev/null 2>&1 || fail "dockerd does not start; $log says why"
fi
if ! docker image inspect "$BASE" >/dev/null 2>&1 && ! timeout 60 docker pull --quiet "$BASE" >/dev/null 2>&1; then
    # No registry: the same thing from Debian's packages, under the same name.
    mmdebstrap --quiet --variant=minbase --include=ca-certificates bookworm - |
        docker import --change 'CMD ["bash"]' - "$BASE" >/dev/null
fi
