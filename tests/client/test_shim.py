import subprocess
import sys


def test_neither_shim_nor_client_app_imports_torch_or_what_reads_the_data() -> None:
    """Flower starts a process for every message: each import costs a device seconds, and memory that it has not."""
    code = "import sys, client.app, client.shim; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "client.shim" in modules
    assert modules.isdisjoint({"torch", "onnx", "onnxruntime", "PIL", "pyarrow", "client.device", "client.data"})
