"""Generate the Python code of protos/*.proto, or check that what is committed is current."""

import argparse
import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"


def generate(target: Path) -> None:
    """Write message modules and type stubs of every proto file under `target`/protos."""
    sources = sorted(str(path.relative_to(ROOT)) for path in PROTOS.glob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={target}", f"--pyi_out={target}"]
    subprocess.run([*command, *sources], cwd=ROOT, check=True)


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
