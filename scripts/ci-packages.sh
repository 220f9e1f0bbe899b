#!/usr/bin/env bash
# Debian packages that CI needs beyond Python, git and make. None so far.
set -euo pipefail
