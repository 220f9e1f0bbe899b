"""Generate the Python code of protos/*.proto, or check that what is committed is current."""

import argparse
import filecmp
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"


def generate(target: Path) -> None:
    """Write the message and service modules of every proto file, with type stubs, under `target`/protos."""
    sources = sorted(PROTOS.glob("*.proto"))
    services = [path for path in sources if "\nservice " in path.read_text(encoding="utf-8")]
    messages = [f"--python_out={target}", f"--pyi_out={target}"]
    _protoc(messages, sources)
    _protoc([f"--grpc_python_out={target}", f"--mypy_grpc_out={target}"], services)


def _protoc(options: list[str], sources: list[Path]) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *options]
    plugins = str(Path(sys.executable).parent)  # of mypy-protobuf
    environment = {**os.environ, "PATH": f"{plugins}{os.pathsep}{os.environ.get('PATH', '')}"}
    names = [str(path.relative_to(ROOT)) for path in sources]
    subprocess.run([*command, *names], cwd=ROOT, check=True, env=environment)


def main() -> int:
    """Generate in place; with --check compare with a fresh generation and return 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with what is committed, write nothing")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = sorted(Path(folder, "protos").iterdir())
        stale = [
            path.name
            for path in fresh
            if not (PROTOS / path.name).exists() or not filecmp.cmp(path, PROTOS / path.name, shallow=False)
        ]
    if stale:
        print(f"generated code is not current: {', '.join(stale)}; run `make protos`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
