"""What static int8 costs a student that it suits badly, by calibration alone and after distillation under quantization.

`python -m benchmarks.qat [--json] [--seeds 0 1 2] [--spread 30]`: on digits, a depthwise student is distilled from a
teacher about unlabelled images; then the channels before each depthwise convolution are scaled by 1/spread to spread
and the scales undone behind, which ReLU lets pass. Its float answers stay the same, but a scale per tensor no longer
fits its activations: the collapse of depthwise students, made to size. Both int8 forms come from that one float
student, the same proxy images and labels; the test set is only measured on.
"""

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fedstill.learning import build, fit, predict
from fedstill.losses import kd_from_probabilities
from fedstill.models import architecture
from fedstill.rng import torch_seed
from fedstill.settings import FitSettings
from fedstill.workers import prepare_torch
from server.release.aware import Awareness, distil_aware
from server.release.export import export
from server.release.quantize import quantize
from server.release.runtime import logits
from simulations.sources import DIGITS, load_digits

STUDENT, TEACHER = "tiny-separable-m", "tiny-conv-l"
LABELLED, CALIBRATION = 400, 200
TAUGHT = FitSettings(epochs=30, batch=32, learning_rate=0.05)
AWARE = FitSettings(optimizer="adam", epochs=15, batch=32, learning_rate=3e-4, weight_decay=0)


def spread(model: nn.Module, low: float, high: float) -> None:
    """Scale the channels before each depthwise convolution and undo it behind: ReLU lets positive scales pass."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    for place in range(0, len(layers) - 2, 2):
        norm, following = layers[place + 1], layers[place + 2]
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(following, nn.Conv2d)
        scales = torch.logspace(np.log10(low), np.log10(high), norm.num_features)
        norm.weight.data *= scales
        norm.bias.data *= scales
        depthwise = following.groups > 1
        following.weight.data /= scales.view(-1, 1, 1, 1) if depthwise else scales.view(1, -1, 1, 1)


def measured(seed: int, width: float) -> dict[str, float]:
    """Return the test accuracy of the float student and of its two int8 forms."""
    arrays = load_digits(None)
    images, labels = arrays.train_images[:LABELLED], torch.from_numpy(arrays.train_labels[:LABELLED])
    proxy = arrays.train_images[LABELLED:]
    teacher = build(architecture(TEACHER), DIGITS, torch_seed(seed, "teacher"))
    fit(teacher, images, labels, DIGITS, TAUGHT.of(len(images)), F.cross_entropy, torch_seed(seed, "teach"))
    soft = predict(teacher, proxy, DIGITS)
    model = build(architecture(STUDENT), DIGITS, torch_seed(seed, "student"))
    loss = partial(kd_from_probabilities, temperature=1.0)
    fit(model, proxy, torch.from_numpy(soft), DIGITS, TAUGHT.of(len(proxy)), loss, torch_seed(seed, "distil"))
    spread(model, 1 / width, width)
    calibration = proxy[:CALIBRATION]
    with tempfile.TemporaryDirectory() as folder:
        fp32, static, aware = (Path(folder) / f"{name}.onnx" for name in ("fp32", "static", "aware"))
        export(model, DIGITS, fp32)
        quantize(fp32, static, DIGITS, calibration)
        _, agreement = distil_aware(
            model, aware, DIGITS, STUDENT, Awareness(proxy, soft, AWARE, 1.0, seed), calibration
        )
        found = {
            path.stem: float(
                (logits(path.read_bytes(), DIGITS, arrays.test_images).argmax(axis=1) == arrays.test_labels).mean()
            )
            for path in (fp32, static, aware)
        }
    return {**found, "agreement": agreement}


def main() -> None:
    """Parse the command line and print what each form loses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--spread", type=float, default=30.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    prepare_torch()
    rows = {}
    for seed in options.seeds:
        rows[seed] = measured(seed, options.spread)
        print(f"seed {seed}: {rows[seed]}", file=sys.stderr, flush=True)
    answer: dict[str, Any] = {"student": STUDENT, "spread": options.spread, "accuracy": rows}
    if options.json:
        print(json.dumps(answer, indent=2))
        return
    print("| seed | fp32 | static int8 | loss | quantization-aware | loss |\n|" + " --- |" * 6)
    for seed, row in rows.items():
        lost = [100 * (row["fp32"] - row[name]) for name in ("static", "aware")]
        accuracies = [f"{100 * row[name]:.1f}" for name in ("fp32", "static", "aware")]
        print(f"| {seed} | {accuracies[0]} | {accuracies[1]} | {lost[0]:.1f} | {accuracies[2]} | {lost[1]:.1f} |")


if __name__ == "__main__":
    main()
