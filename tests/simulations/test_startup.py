import subprocess
import sys

FOR_THE_END = {"jinja2", "matplotlib", "onnx", "onnxruntime", "onnxruntime.quantization", "onnxscript"}
FOR_OTHERS = {"datasets", "optuna", "pandas", "pyarrow", "ray", "scipy", "sklearn", "torch._dynamo", "torchao"}


def loaded(code: str) -> set[str]:
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sorted(sys.modules))"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_run_gets_to_its_rounds_without_what_its_release_and_its_report_need() -> None:
    begun = """
import simulations.commands, simulations.compare, simulations.job, simulations.baselines.job
from simulations.methods import load_method
from simulations.shelf import split
from simulations.validate import validate
scenario = load_method("digits", "fedstill")
validate(scenario)
split(scenario)
"""
    modules = loaded(begun)
    assert "simulations.job" in modules
    assert modules.isdisjoint(FOR_THE_END | FOR_OTHERS)


def test_a_scenario_is_read_without_torch_which_workers_load_meanwhile() -> None:
    read = "from simulations.setup import load_method; load_method('digits', 'fedstill')"
    assert not {"torch", "flwr", "grpc"} & loaded(
        f"import benchmarks.fleet_run, simulations.commands, simulations.compare; {read}"
    )


def test_help_and_wrong_options_of_searches_and_evaluations_need_no_torch() -> None:
    wrong = """
import simulations.evaluate
from simulations.compress.commands import compress
from fedstill.errors import ConfigError
for options in ({}, {"device_class": "pi4"}, {"resume": True}):
    try:
        compress(**{"device_class": None, "run": None, "scenario": None, "out": None, "resume": False, **options})
    except ConfigError:
        continue
    raise AssertionError(options)
"""
    modules = loaded(wrong)
    assert "simulations.compress.commands" in modules
    assert modules.isdisjoint(FOR_THE_END | FOR_OTHERS | {"torch", "flwr", "grpc"})


def test_workers_load_neither_flower_nor_what_draws_and_signs() -> None:
    modules = loaded("import simulations.host")
    assert {"simulations.host", "torch"} <= modules
    assert modules.isdisjoint(FOR_THE_END | FOR_OTHERS | {"cryptography", "flwr", "grpc", "rich", "tuf"})
