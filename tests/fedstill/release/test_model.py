import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fedstill.release.model import session

ROWS, COLUMNS = 64, 16


def largest_products() -> bytes:
    """Return an int8 model whose pairs of products are as large as they get, 255 x 127 twice."""
    weights = np.full((ROWS, COLUMNS), 127, dtype=np.int8)
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_q"]),
            helper.make_node("DequantizeLinear", ["x_q", "x_scale", "x_zero"], ["x_d"]),
            helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_d"]),
            helper.make_node("MatMul", ["x_d", "w_d"], ["y_f"]),
            helper.make_node("QuantizeLinear", ["y_f", "y_scale", "y_zero"], ["y_q"]),
            helper.make_node("DequantizeLinear", ["y_q", "y_scale", "y_zero"], ["y"]),
        ],
        "largest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", ROWS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", COLUMNS])],
        [
            numpy_helper.from_array(weights, "w"),
            *(numpy_helper.from_array(np.array(1, np.float32), f"{name}_scale") for name in "xw"),
            numpy_helper.from_array(np.array(ROWS * 127, np.float32), "y_scale"),
            *(numpy_helper.from_array(np.array(0, np.uint8), f"{name}_zero") for name in "xy"),
            numpy_helper.from_array(np.array(0, np.int8), "w_zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_integer_sums_are_exact_on_processors_without_vnni_too() -> None:
    inputs = np.full((1, ROWS), 255, dtype=np.float32)
    (found,) = session(largest_products()).run(None, {"x": inputs})
    assert (found == ROWS * 127 * 255.0).all()


def test_a_model_that_can_not_be_rewritten_for_exact_sums_is_opened_all_the_same() -> None:
    model = onnx.load_from_string(largest_products())
    second = helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_again"])
    model.graph.node.insert(4, second)
    (product,) = (node for node in model.graph.node if node.op_type == "MatMul")
    total = helper.make_node("MatMul", ["x_d", "w_again"], ["y_again"])
    model.graph.node.insert(5, total)
    model.graph.output.append(helper.make_tensor_value_info("y_again", TensorProto.FLOAT, ["batch", COLUMNS]))
    assert product.output
    found = session(model.SerializeToString()).run(None, {"x": np.ones((1, ROWS), np.float32)})
    assert [part.shape for part in found] == [(1, COLUMNS)] * 2
