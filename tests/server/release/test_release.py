import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from benchmarks.qat import spread
from fedstill.device_classes import Budget, FormatChoice, budget_of
from fedstill.learning import build, fit, restored, state_of
from fedstill.models import architecture
from fedstill.settings import FitSettings
from fedstill.tasks import load_task
from server.release import checks
from server.release.aware import Awareness
from server.release.export import export, strip, torch_difference
from server.release.formats import FORMATS
from server.release.quantize import count_quantized, quantize
from server.release.runtime import latency_ms, logits
from server.release.student import C_FORMATS, FLOAT_FILE, INT8_FILE, Released, paired_interval, release
from simulations.sources import load_digits

TASK_NAME = "simulations.sources:DIGITS"
TASK = load_task(TASK_NAME)
ARRAYS = load_digits(None)


@pytest.fixture(scope="module", params=["tiny-conv-m", "tiny-separable-s"])
def student(request: pytest.FixtureRequest) -> tuple[str, dict[str, torch.Tensor]]:
    model = build(architecture(request.param), TASK, seed=0)
    how = FitSettings(epochs=20, learning_rate=0.05).of(600)
    labels = torch.from_numpy(ARRAYS.train_labels[:600])
    fit(model, ARRAYS.train_images[:600], labels, TASK, how, torch.nn.functional.cross_entropy, 0)
    return request.param, state_of(model)


@pytest.fixture(scope="module")
def released(
    student: tuple[str, dict[str, torch.Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Released, Path]:
    folder = tmp_path_factory.mktemp("release")
    test = (ARRAYS.test_images, ARRAYS.test_labels)
    return release(TASK_NAME, "mcu", *student, ARRAYS.train_images[600:800], test, folder, budget_of("mcu")), folder


def test_the_fp32_file_equals_torch_and_int8_loses_at_most_a_point(released: tuple[Released, Path]) -> None:
    facts, _ = released
    assert facts.torch_difference <= 1e-4
    assert facts.accuracy_fp32 > 0.85
    low, _ = facts.drop_interval
    assert facts.accuracy_fp32 - facts.accuracy_int8 <= 0.01 or low <= 0


def test_batch_norm_is_folded_and_every_weighted_operator_is_int8(released: tuple[Released, Path]) -> None:
    facts, folder = released
    fp32, int8 = onnx.load(folder / FLOAT_FILE), onnx.load(folder / INT8_FILE)
    assert "BatchNormalization" not in {node.op_type for node in fp32.graph.node}
    quantized, weighted = count_quantized(int8)
    assert quantized == weighted == facts.quantized_operators > 0
    assert count_quantized(fp32)[0] == 0


def test_files_carry_no_trace_of_the_exporting_machine(released: tuple[Released, Path]) -> None:
    _, folder = released
    for name in (FLOAT_FILE, INT8_FILE):
        content = (folder / name).read_bytes()
        for trace in (
            b"site-packages",
            b'.py"',
            b"File ",
            b"/home",
            b"/root",
            b"stack_trace",
            str(Path.cwd()).encode(),
        ):
            assert trace not in content


def test_only_the_batch_dimension_is_dynamic_and_both_ends_are_float32(released: tuple[Released, Path]) -> None:
    _, folder = released
    for name in (FLOAT_FILE, INT8_FILE):
        graph = onnx.load(folder / name).graph
        for value in (*graph.input, *graph.output):
            first, *rest = value.type.tensor_type.shape.dim
            assert first.dim_param
            assert not first.dim_value
            assert all(dim.dim_value > 0 for dim in rest)
            assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        content = (folder / name).read_bytes()
        assert logits(content, TASK, ARRAYS.test_images[:7], batch=3).shape == (7, 10)


def test_a_student_that_holds_all_checks_is_not_refused(released: tuple[Released, Path]) -> None:
    facts, folder = released
    assert facts.refused == []
    assert len(facts.checks) == 9
    assert {path.name for path in folder.iterdir()} == {FLOAT_FILE, INT8_FILE, *C_FORMATS}


def test_the_quantized_file_is_about_a_quarter_of_the_weights(released: tuple[Released, Path]) -> None:
    facts, _ = released
    assert facts.onnx_bytes <= 0.26 * 4 * facts.parameters + 32 * 1024


def test_a_microcontrollers_student_comes_as_c_that_takes_what_its_activations_take(
    released: tuple[Released, Path],
) -> None:
    facts, _ = released
    assert facts.c_code["arena_bytes"] == facts.activation_bytes
    assert "C code" in {check.name for check in facts.checks}


def test_the_description_names_files_input_and_hashes(released: tuple[Released, Path]) -> None:
    facts, folder = released
    described = facts.description
    assert described is not None
    for name, entry in described.files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == entry.sha256
    assert described.artifact == INT8_FILE
    assert described.input.shape == ("batch", 1, 8, 8)
    assert described.metrics["accuracy_int8"] == facts.accuracy_int8


def test_the_self_test_holds_proxy_samples_only_and_no_near_tie(released: tuple[Released, Path]) -> None:
    facts, _ = released
    assert facts.description is not None
    test = facts.description.self_test
    proxy = {image.tobytes() for image in ARRAYS.train_images[600:800]}
    assert all(image.tobytes() in proxy for image in test.pixels())
    top = np.sort(test.expected[INT8_FILE].values(), axis=1)
    assert (top[:, -1] - top[:, -2] > 0.1).all()


def test_only_the_integer_model_must_answer_exactly(released: tuple[Released, Path]) -> None:
    assert released[0].description is not None
    expected = released[0].description.self_test.expected
    assert (expected[INT8_FILE].exact, expected[FLOAT_FILE].exact) == (True, False)


def test_a_model_that_a_fresh_process_cannot_run_is_refused(
    student: tuple[str, dict[str, torch.Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.release.student.PATIENCE", 0.01)
    test = (ARRAYS.test_images[:20], ARRAYS.test_labels[:20])
    facts = release(TASK_NAME, "mcu", *student, ARRAYS.train_images[600:620], test, tmp_path, budget_of("mcu"))
    assert facts.refused == [
        "self-test student.onnx: no answer within 0.01 s, allowed an answer of both models",
    ]
    assert facts.description is None


def test_more_parameters_than_the_class_allows_are_refused(
    student: tuple[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    test, budget = (ARRAYS.test_images[:20], ARRAYS.test_labels[:20]), budget_of("mcu", Budget(parameters=100))
    facts = release(TASK_NAME, "mcu", *student, ARRAYS.train_images[600:620], test, tmp_path, budget)
    assert facts.refused == [f"parameters {facts.parameters:,}, allowed 100"]


@pytest.mark.parametrize("wanted", ["static-int8", "measured"])
def test_a_student_whose_training_went_astray_is_refused_with_the_reason(wanted: FormatChoice, tmp_path: Path) -> None:
    name = "tiny-conv-m"
    state = state_of(build(architecture(name), TASK, seed=0))
    state["head.weight"] = torch.full_like(state["head.weight"], float("nan"))
    test = (ARRAYS.test_images[:20], ARRAYS.test_labels[:20])
    facts = release(
        TASK_NAME, "pi5", name, state, ARRAYS.train_images[600:620], test, tmp_path, Budget(), wanted=wanted
    )
    assert facts.refused[0] == "training left parameters or logits that are no numbers, allowed finite ones"
    assert facts.description is None
    json.dumps([facts.accuracy_fp32, facts.accuracy_int8, facts.robustness], allow_nan=False)  # go into the summary


def test_memory_of_a_fresh_process_is_far_below_one_with_torch(released: tuple[Released, Path]) -> None:
    assert 20e6 < released[0].peak_rss_bytes < 120e6


def test_disturbances_cost_accuracy_and_the_clean_level_is_the_same_for_all(released: tuple[Released, Path]) -> None:
    curves = released[0].robustness
    assert set(curves) == {"noise", "brightness", "blur", "occlusion"}
    assert len({curve["0"] for curve in curves.values()}) == 1
    assert all(list(curve.values())[-1] < curve["0"] for name, curve in curves.items() if name != "brightness")


def test_a_file_that_differs_from_torch_is_told_by_its_difference(
    student: tuple[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    name, state = student
    model = restored(architecture(name), TASK, state)
    export(model, TASK, tmp_path / "a.onnx")
    assert checks.equality(torch_difference(model, tmp_path / "a.onnx", TASK, ARRAYS.test_images[:8])).passed
    with torch.no_grad():
        model.head.bias += 1.0  # type: ignore[union-attr,operator]
    assert not checks.equality(torch_difference(model, tmp_path / "a.onnx", TASK, ARRAYS.test_images[:8])).passed


def test_a_graph_with_nothing_to_quantize_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "relu.onnx"
    shape: list[str | int | None] = ["batch", 1, 8, 8]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["image"], ["logits"])],
        "g",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape)],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), source)
    proto = quantize(source, tmp_path / "int8.onnx", TASK, ARRAYS.train_images[:4])
    check = checks.operators(*count_quantized(proto))
    assert checks.refusals([check]) == ["int8 operators 0 of 0, allowed all, at least 1"]


def test_stripping_removes_notes_everywhere() -> None:
    node = onnx.helper.make_node("Relu", ["a"], ["b"])
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/somebody/home/model.py")
    node.doc_string = "/somebody/home"
    proto = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))
    strip(proto)
    assert b"somebody" not in proto.SerializeToString()


def test_the_paired_interval_is_of_the_difference_by_sample() -> None:
    labels = np.zeros(100, dtype=np.int64)
    before, after = labels.copy(), labels.copy()
    assert paired_interval(before, after, labels) == (0.0, 0.0)
    after[:10] = 1
    low, high = paired_interval(before, after, labels)
    assert low > 0
    assert (low + high) / 2 == pytest.approx(0.1)


def test_latency_is_a_positive_median(released: tuple[Released, Path]) -> None:
    _, folder = released
    content = (folder / INT8_FILE).read_bytes()
    assert 0 < latency_ms(content, TASK, ARRAYS.test_images[:1], repeats=5) < 1000


def test_a_measured_class_gets_a_format_that_passed_and_its_manifest_tells_what_each_did(
    student: tuple[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    if student[0] != "tiny-conv-m":
        pytest.skip("one student is enough")
    test = (ARRAYS.test_images[:60], ARRAYS.test_labels[:60])
    proxy = ARRAYS.train_images[600:640]
    facts = release(TASK_NAME, "pi5", *student, proxy, test, tmp_path, budget_of("pi5"), wanted="measured")
    tried = {found.format: found for found in facts.formats}
    assert set(tried) == set(FORMATS)
    assert {name for name, found in tried.items() if "does not suit" in found.refused} == {"dynamic-int8", "int4"}
    assert not tried[facts.format].refused
    assert facts.onnx_bytes == tried[facts.format].bytes == (tmp_path / facts.artifact).stat().st_size
    assert facts.description is not None
    assert facts.description.artifact == facts.artifact
    assert facts.description.files[facts.artifact].format == FORMATS[facts.format].words
    assert facts.description.self_test.expected[facts.artifact].tolerance == FORMATS[facts.format].tolerance
    assert [row["format"] for row in facts.description.metrics["formats"]] == list(FORMATS)


def test_a_microcontrollers_student_is_not_released_without_c_for_learning_under_quantization(
    student: tuple[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    name, state = student
    model = restored(architecture(name), TASK, state)
    spread(model, 1 / 30, 30)
    labels = np.full((40, TASK.classes), 0.1, dtype=np.float32)
    how = FitSettings(epochs=1, learning_rate=1e-3)
    lesson = Awareness(ARRAYS.train_images[:40], labels, how, 1.0, seed=0)
    test, calibration = (ARRAYS.test_images, ARRAYS.test_labels), ARRAYS.train_images[600:800]
    facts = release(
        TASK_NAME, "mcu", name, state_of(model), calibration, test, tmp_path, budget_of("mcu"), aware=lesson
    )
    assert facts.accuracy_calibrated is None
    (told,) = [check for check in facts.checks if check.name == "quantization-aware"]
    assert told.figure == "a microcontroller's C code is written of calibrated int8 alone"
    assert any("accuracy" in reason for reason in facts.refused)
