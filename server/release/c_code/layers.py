"""A quantized ONNX student (QDQ form) read as the chain of integer layers that it stands for.

Layouts are changed on the way: ONNX keeps channels first, the C code channels last, where a pixel's channels lie
side by side.
"""

from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from fedstill.errors import ExportError
from fedstill.soft_labels import Floats

Bytes = npt.NDArray[np.int8]
Sums = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Scale:
    """What a uint8 activation means: (value - zero) * step."""

    step: np.float32
    zero: int


@dataclass(frozen=True)
class Weights:
    """Weights of a layer, and how its sums become activations.

    Attributes:
        values: `[outputs, kernel height, kernel width, inputs]`, depthwise `[kernel height, kernel width, channels]`,
            dense `[outputs, inputs]`.
        bias: in units of the sums `[outputs]`.
        factors: from sums to steps of the output `[outputs]`.
        low: smallest value of the output; its zero point where negative ones are cut off.
    """

    values: Bytes
    bias: Sums
    factors: Floats
    low: int


@dataclass(frozen=True)
class Layer:
    """One step of the chain.

    Attributes:
        kind: `conv`, `depthwise`, `max_pool`, `mean` or `dense`.
        before: channels, height and width of what comes in.
        after: likewise of what comes out; dense and mean have height and width 1.
        scale_before: of what comes in.
        scale_after: of what comes out.
        kernel: height and width.
        strides: height and width.
        pads: top and left.
        weights: None where the layer has none.
    """

    kind: str
    before: tuple[int, int, int]
    after: tuple[int, int, int]
    scale_before: Scale
    scale_after: Scale
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)
    weights: Weights | None = None

    @property
    def out_bytes(self) -> int:
        """Bytes of what comes out."""
        return int(np.prod(self.after))


@dataclass(frozen=True)
class Network:
    """A student.

    Attributes:
        shape: channels, height and width of its input.
        scale: of its quantized input.
        layers: in order; the last one gives the logits.
    """

    shape: tuple[int, int, int]
    scale: Scale
    layers: tuple[Layer, ...]


def read(proto: onnx.ModelProto) -> Network:
    """Return the chain of layers of a quantized student.

    Raises:
        ExportError: it is no chain, or has an operator or a form of one that the C code does not know.
    """
    try:
        return _Reader(proto).network()
    except (IndexError, KeyError, ValueError) as error:  # an input that an operator may have, or may not
        raise ExportError(f"C code: an operator has a form that is not known ({error!r})") from error


def _unknown(node: onnx.NodeProto, what: str) -> NoReturn:
    raise ExportError(f"C code: operator {node.op_type} {what}")


@dataclass
class _Reader:
    proto: onnx.ModelProto
    tensors: dict[str, npt.NDArray[Any]] = field(init=False)
    users: dict[str, list[onnx.NodeProto]] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.proto.graph
        self.tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.users = {}
        for node in graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.makers = {name: node for node in graph.node for name in node.output}

    def network(self) -> Network:
        graph = self.proto.graph
        channels, height, width = (dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim[1:])
        name, first = self._quantized(graph.input[0].name)
        shape = channels, height, width
        layers: list[Layer] = []
        scale, order = first, None
        while name != graph.output[0].name:
            node = self._only_user(name)
            if node.op_type in ("Reshape", "Flatten"):
                if int(np.prod(shape)) != shape[0]:
                    order = shape  # dense layers after it expect channels first
                shape = int(np.prod(shape)), 1, 1
                name, scale = self._quantized(node.output[0])
                continue
            layer, name = self._layer(node, shape, scale, order)
            layers.append(layer)
            shape, scale = layer.after, layer.scale_after
            order = order if layer.kind != "dense" else None
        return Network((channels, height, width), first, tuple(layers))

    def _only_user(self, name: str) -> onnx.NodeProto:
        users = self.users.get(name, [])
        if len(users) != 1:
            raise ExportError(f"C code: {name} is used {len(users)} times; only a chain of layers can be written as C")
        return users[0]

    def _scale(self, node: onnx.NodeProto) -> Scale:
        step, zero = (self.tensors[name] for name in node.input[1:3])
        if zero.dtype != np.uint8 or step.size != 1:
            _unknown(node, "with activations other than uint8, one scale each, is not known")
        return Scale(np.float32(step.item()), int(zero.item()))

    def _quantized(self, name: str) -> tuple[str, Scale]:
        """Follow an activation through its QuantizeLinear and DequantizeLinear."""
        quantize = self._only_user(name)
        if quantize.op_type != "QuantizeLinear":
            _unknown(quantize, f"takes {name} before it is quantized")
        dequantize = self._only_user(quantize.output[0])
        if dequantize.op_type != "DequantizeLinear":
            _unknown(dequantize, "on integers is not known")
        return dequantize.output[0], self._scale(quantize)

    def _layer(
        self, node: onnx.NodeProto, shape: tuple[int, int, int], scale: Scale, order: tuple[int, int, int] | None
    ) -> tuple[Layer, str]:
        output, cut = node.output[0], False
        following = self._only_user(output)
        if following.op_type == "Relu":
            output, cut = following.output[0], True
        name, after = self._quantized(output)
        low = after.zero if cut else 0
        if node.op_type == "Conv":
            return self._conv(node, shape, scale, after, low), name
        if node.op_type == "MaxPool":
            return self._max_pool(node, shape, scale, after), name
        if node.op_type in ("ReduceMean", "GlobalAveragePool"):
            return self._mean(node, shape, scale, after), name
        if node.op_type == "Gemm":
            return self._dense(node, shape, scale, after, low, order), name
        return _unknown(node, "is not known")

    def _weights(self, node: onnx.NodeProto) -> tuple[Bytes, npt.NDArray[np.float32], Sums]:
        """Return int8 weights, the scale of each output and the bias."""
        maker = self.makers.get(node.input[1])
        if maker is None or maker.op_type != "DequantizeLinear":
            _unknown(node, "with weights that are not quantized is not known")
        values, steps, zeros = (self.tensors[name] for name in maker.input)
        if values.dtype != np.int8 or zeros.any():
            _unknown(node, "with weights other than symmetric int8 is not known")
        steps = np.broadcast_to(steps, values.shape[:1]).astype(np.float32)
        if len(node.input) < 3:
            return values, steps, np.zeros(len(values), dtype=np.int32)
        bias = self.makers[node.input[2]]
        return values, steps, self.tensors[bias.input[0]].astype(np.int32)

    def _conv(self, node: onnx.NodeProto, shape: tuple[int, int, int], scale: Scale, after: Scale, low: int) -> Layer:
        found = _attributes(node)
        values, steps, bias = self._weights(node)
        outputs, per_group = values.shape[:2]
        group = found.get("group", 1)
        depthwise = group == shape[0] == outputs and per_group == 1 and group > 1
        if group != 1 and not depthwise:
            _unknown(node, f"in {group} groups of {shape[0]} channels is not known")
        window = _window(node, found, shape, values.shape[2:])
        laid = values[:, 0].transpose(1, 2, 0) if depthwise else values.transpose(0, 2, 3, 1)
        weights = Weights(np.ascontiguousarray(laid), bias, scale.step * steps / after.step, low)
        return Layer(
            "depthwise" if depthwise else "conv",
            shape,
            (outputs, *window.out),
            scale,
            after,
            window.kernel,
            window.strides,
            window.pads,
            weights,
        )

    def _max_pool(self, node: onnx.NodeProto, shape: tuple[int, int, int], scale: Scale, after: Scale) -> Layer:
        if scale != after:
            _unknown(node, "that changes the scale is not known")
        found = _attributes(node)
        window = _window(node, found, shape, tuple(found["kernel_shape"]))
        pads = window.pads
        return Layer("max_pool", shape, (shape[0], *window.out), scale, after, window.kernel, window.strides, pads)

    def _mean(self, node: onnx.NodeProto, shape: tuple[int, int, int], scale: Scale, after: Scale) -> Layer:
        if node.op_type == "ReduceMean" and sorted(self.tensors[node.input[1]].tolist()) not in ([2, 3], [-2, -1]):
            _unknown(node, "over anything but the whole image is not known")
        return Layer("mean", shape, (shape[0], 1, 1), scale, after)

    def _dense(
        self,
        node: onnx.NodeProto,
        shape: tuple[int, int, int],
        scale: Scale,
        after: Scale,
        low: int,
        order: tuple[int, int, int] | None,
    ) -> Layer:
        found = _attributes(node)
        if (found.get("alpha", 1.0), found.get("beta", 1.0), found.get("transA", 0)) != (1.0, 1.0, 0):
            _unknown(node, "with factors or a transposed input is not known")
        values, steps, bias = self._weights(node)
        if not found.get("transB", 0):
            values = values.T
        if order is not None:
            values = values.reshape(-1, *order).transpose(0, 2, 3, 1)
        laid = np.ascontiguousarray(values.reshape(len(bias), -1))
        weights = Weights(laid, bias, scale.step * steps / after.step, low)
        return Layer("dense", shape, (len(bias), 1, 1), scale, after, weights=weights)


@dataclass(frozen=True)
class _Window:
    out: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int]


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _window(
    node: onnx.NodeProto, found: dict[str, Any], shape: tuple[int, int, int], kernel: tuple[int, ...]
) -> _Window:
    if found.get("auto_pad", b"NOTSET") != b"NOTSET" or found.get("ceil_mode", 0) or len(kernel) != 2:
        _unknown(node, "with automatic padding, ceil mode or other than two dimensions is not known")
    if list(found.get("dilations", [1, 1])) != [1, 1]:
        _unknown(node, "with dilation is not known")
    strides = tuple(found.get("strides", [1, 1]))
    top, left, bottom, right = found.get("pads", [0, 0, 0, 0])
    out = (
        (shape[1] + top + bottom - kernel[0]) // strides[0] + 1,
        (shape[2] + left + right - kernel[1]) // strides[1] + 1,
    )
    return _Window(out, (kernel[0], kernel[1]), (strides[0], strides[1]), (top, left))
