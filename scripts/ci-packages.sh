#!/usr/bin/env bash
# Debian packages that all tests together need beyond Python, git and make; those of containers apart.
set -euo pipefail
missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)          # the students of microcontrollers
command -v strace >/dev/null || missing+=(strace)             # who calls whom, as the kernel sees it
command -v faketime >/dev/null || missing+=(faketime)         # clocks that are wrong
command -v ip >/dev/null || missing+=(iproute2)               # a device in a network namespace of its own
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    apt-get install -qq --no-install-recommends "${missing[@]}"
fi
