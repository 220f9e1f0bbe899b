#!/usr/bin/env bash
# Build the images from the packages that this environment's pip finds, wherever that is: they are downloaded here and
# served to the build, which needs no index then. Where containers reach PyPI, `make images` does without this.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
wheels=$PWD/build/wheels
stamp=$wheels/.complete
# The same at each build: an image remembers its arguments, and is built anew when they change.
port=18741

if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ constraints.txt -nt "$stamp" ]; then
    "$python" -m pip download --quiet --dest "$wheels" --constraint constraints.txt '.[server,runs,edge-train]' hatchling
    touch "$stamp"
fi
"$python" -m http.server --bind 127.0.0.1 --directory "$wheels" "$port" >/dev/null 2>&1 &
trap 'kill $!' EXIT

build() {
    local name=$1 tag=$2
    shift 2
    docker build --quiet --network host --file "deploy/images/$name.Dockerfile" --tag "$tag" "$@" \
        --build-arg PIP_NO_INDEX=1 --build-arg PIP_EXTRA_INDEX_URL= \
        --build-arg "PIP_FIND_LINKS=http://127.0.0.1:$port" .
}

build proxy fedstill/proxy
build server fedstill/server
build client fedstill/client
build client fedstill/client:train --build-arg EXTRA=edge-train
