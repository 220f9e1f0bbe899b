"""C11 sources of a quantized student: tables and calls, beside the kernels that it needs."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from string import Template

import numpy as np
import onnx

from fedstill.files import write_atomic
from fedstill.release.manifest import Normalization
from fedstill.release.model import normalized
from fedstill.soft_labels import Floats
from fedstill.tasks import Images
from server.release.c_code.kernels import KERNELS
from server.release.c_code.layers import Layer, Network, read

HEADER, SOURCE, SELF_TEST = "student.h", "student.c", "student_selftest.c"

_HEADER = Template("""\
/* A student of $classes classes, made by Fedstill. No heap, no library, no state between calls but one static buffer:
 * one call at a time. */
#ifndef STUDENT_H
#define STUDENT_H

#include <stdint.h>

#define STUDENT_CHANNELS $channels
#define STUDENT_HEIGHT $height
#define STUDENT_WIDTH $width
#define STUDENT_CLASSES $classes
#define STUDENT_ARENA_BYTES $arena /* of activations */

extern const char *const student_labels[STUDENT_CLASSES];

/* Classify an image: pixels are uint8, channels first, as they come (normalization is part of the student). Writes the
 * logits and returns the class of the largest one. */
int student_predict(const uint8_t pixels[STUDENT_CHANNELS * STUDENT_HEIGHT * STUDENT_WIDTH],
                    float logits[STUDENT_CLASSES]);

#endif
""")

_TYPES = {
    "window": """\
struct window {
    int32_t in_height, in_width, in_channels, out_height, out_width, out_channels;
    int32_t kernel_height, kernel_width, stride_height, stride_width, pad_top, pad_left;
};
""",
    "weights": """\
struct weights {
    const int8_t *values;
    const int32_t *bias;
    const float *factors;             /* from a sum to steps of the output */
    int32_t in_zero, out_zero, out_low; /* zero points, and the smallest value that comes out */
};
""",
    "average": """\
struct average {
    int32_t channels, places, in_zero, out_zero;
    float in_scale, out_scale;
};
""",
}
_NEEDS = {
    "conv": ("window", "weights"),
    "depthwise": ("window", "weights"),
    "max_pool": ("window",),
    "mean": ("average",),
    "dense": ("weights",),
}

_PREDICT = Template("""\
int student_predict(const uint8_t pixels[STUDENT_CHANNELS * STUDENT_HEIGHT * STUDENT_WIDTH],
                    float logits[STUDENT_CLASSES]) {
    const int32_t places = STUDENT_HEIGHT * STUDENT_WIDTH;
    for (int32_t place = 0; place < places; place++) {
        for (int32_t channel = 0; channel < STUDENT_CHANNELS; channel++) {
            arena[$start + place * STUDENT_CHANNELS + channel] = input_of[channel][pixels[channel * places + place]];
        }
    }
$calls
    int best = 0;
    for (int out = 0; out < STUDENT_CLASSES; out++) {
        logits[out] = (float)((int32_t)arena[$end + out] - $zero) * $step;
        best = logits[out] > logits[best] ? out : best;
    }
    return best;
}
""")

_SELF_TEST = Template("""\
/* Does this processor give the answers that the student's release was verified with? Returns 0 where it does. */
#include "student.h"

#include <stdio.h>

$images
$expected
int main(void) {
    int wrong = 0;
    for (int sample = 0; sample < $count; sample++) {
        float logits[STUDENT_CLASSES];
        (void)student_predict(images[sample], logits);
        for (int out = 0; out < STUDENT_CLASSES; out++) {
            wrong += logits[out] != expected[sample][out];
        }
    }
    printf("%d of %d logits differ\\n", wrong, $count * STUDENT_CLASSES);
    return wrong != 0;
}
""")


def write(
    proto: onnx.ModelProto,
    folder: Path,
    how: Normalization,
    label_names: Sequence[str],
    self_test: tuple[Images, Floats],
) -> int:
    """Write header, source and self-test of a quantized student, and return the bytes of its arena.

    Args:
        proto: the student in QDQ form.
        folder: where the files go.
        how: its input's normalization.
        label_names: of the classes.
        self_test: images `[samples, channels, height, width]`, and ONNX Runtime's logits of them `[samples, classes]`.

    Raises:
        ExportError: the student has an operator that the C code does not know.
    """
    network = read(proto)
    arena = arena_bytes(network)
    channels, height, width = network.shape
    sizes = {"channels": channels, "height": height, "width": width, "classes": len(label_names), "arena": arena}
    write_atomic(folder / HEADER, _HEADER.substitute(sizes).encode())
    write_atomic(folder / SOURCE, _source(network, arena, how, label_names).encode())
    write_atomic(folder / SELF_TEST, _self_test_source(*self_test).encode())
    return arena


def arena_bytes(network: Network) -> int:
    """Return the bytes that hold what comes into and out of any layer at once, its largest neighbours."""
    sizes = [int(np.prod(network.shape)), *(layer.out_bytes for layer in network.layers)]
    return max(before + after for before, after in pairwise(sizes))


def _source(network: Network, arena: int, how: Normalization, label_names: Sequence[str]) -> str:
    kinds = sorted({layer.kind for layer in network.layers})
    needed = {name for kind in kinds for name in _NEEDS[kind]}
    tables = [text for place, layer in enumerate(network.layers) for text in _tables(place, layer)]
    labels = ", ".join(f'"{_escaped(name)}"' for name in label_names)
    return "\n".join(
        [
            f'#include "{HEADER}"\n',
            *(text for name, text in _TYPES.items() if name in needed),
            *(KERNELS[name] for name in ("common", *kinds)),
            f"const char *const student_labels[STUDENT_CLASSES] = {{{labels}}};\n",
            _input_table(network, how),
            *tables,
            "static uint8_t arena[STUDENT_ARENA_BYTES];\n",
            _predict(network, arena),
        ]
    )


def _escaped(text: str) -> str:
    """Return a C string's content; all but plain characters as octal bytes, so that nothing breaks out of it."""
    plain = set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-+.,:;()/")
    return "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode())


def _input_table(network: Network, how: Normalization) -> str:
    """Normalization and quantization of each pixel value, as ONNX Runtime would compute them."""
    channels = network.shape[0]
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(1, 1, 1, 256), (1, channels, 1, 256))
    values = normalized(ramp, how)[0, :, 0]
    found = np.clip(np.rint(values / network.scale.step) + network.scale.zero, 0, 255).astype(np.uint8)
    return f"static const uint8_t input_of[STUDENT_CHANNELS][256] = {_rows(found)};\n"


def _tables(place: int, layer: Layer) -> Iterable[str]:
    """Yield the constants of a layer."""
    if layer.kind in ("conv", "depthwise", "max_pool"):
        (channels, *before), (outputs, *after) = layer.before, layer.after
        numbers = (*before, channels, *after, outputs, *layer.kernel, *layer.strides, *layer.pads)
        yield f"static const struct window window_{place} = {_row(map(str, numbers))};\n"
    if layer.kind == "mean":
        channels, height, width = layer.before
        facts = [str(number) for number in (channels, height * width, layer.scale_before.zero, layer.scale_after.zero)]
        steps = [_float(layer.scale_before.step), _float(layer.scale_after.step)]
        yield f"static const struct average average_{place} = {_row([*facts, *steps])};\n"
    if layer.weights is not None:
        own = layer.weights
        yield f"static const int8_t values_{place}[{own.values.size}] = {_row(map(str, own.values.ravel()))};\n"
        yield f"static const int32_t bias_{place}[{own.bias.size}] = {_row(map(str, own.bias))};\n"
        yield f"static const float factors_{place}[{own.factors.size}] = {_row(map(_float, own.factors))};\n"
        names = [f"{name}_{place}" for name in ("values", "bias", "factors")]
        zeros = [str(number) for number in (layer.scale_before.zero, layer.scale_after.zero, own.low)]
        yield f"static const struct weights weights_{place} = {_row([*names, *zeros])};\n"


def _predict(network: Network, arena: int) -> str:
    """The calls; what comes in lies at one end of the arena, what comes out at the other."""
    start = at = 0
    calls = []
    for place, layer in enumerate(network.layers):
        to = arena - layer.out_bytes if at == 0 else 0
        own = {
            "conv": f"&window_{place}, &weights_{place}",
            "depthwise": f"&window_{place}, &weights_{place}",
            "max_pool": f"&window_{place}",
            "mean": f"&average_{place}",
            "dense": f"{int(np.prod(layer.before))}, {layer.after[0]}, &weights_{place}",
        }[layer.kind]
        calls.append(f"    {layer.kind}({own}, arena + {at}, arena + {to});")
        at = to
    last = network.layers[-1].scale_after
    return _PREDICT.substitute(start=start, end=at, calls="\n".join(calls), zero=last.zero, step=_float(last.step))


def _self_test_source(images: Images, expected: Floats) -> str:
    pixels = images.reshape(len(images), -1)
    return _SELF_TEST.substitute(
        count=len(images),
        images=f"static const uint8_t images[{len(images)}][{pixels.shape[1]}] = {_rows(pixels)};\n",
        expected=f"static const float expected[{len(expected)}][{expected.shape[1]}] = "
        + "{\n"
        + ",\n".join(_row(map(_float, row)) for row in expected)
        + "};\n",
    )


def _float(value: float | np.float32) -> str:
    """Return a float32 exactly."""
    return f"{float(np.float32(value)).hex()}f"


def _rows(values: Images) -> str:
    return "{\n" + ",\n".join(_row(map(str, row)) for row in values) + "}"


def _row(parts: Iterable[str]) -> str:
    """Return an initializer in lines of readable length."""
    lines = [""]
    for part in parts:
        if len(lines[-1]) + len(part) > 110:
            lines.append("")
        lines[-1] += f"{part}, "
    return "{" + "\n    ".join(line.rstrip() for line in lines).rstrip(",") + "}"
