#!/usr/bin/env bash
# Debian packages that CI needs beyond Python, git and make: a C compiler, for the students of microcontrollers, and strace.
set -euo pipefail
if ! command -v cc >/dev/null; then
    apt-get update -qq
    apt-get install -qq --no-install-recommends gcc libc6-dev
fi
# Who calls whom, as the kernel sees it (tests/deploy/test_hosts.py).
if ! command -v strace >/dev/null; then
    apt-get update -qq
    apt-get install -qq --no-install-recommends strace
fi
