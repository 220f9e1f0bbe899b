from pathlib import Path

import numpy as np
import pytest
from torch import nn

from fedstill.errors import ExportError, ReleaseError
from fedstill.learning import build, logits
from fedstill.models import architecture
from fedstill.release.backbone import Backbone, open_backbone
from fedstill.release.verify import content_digest
from fedstill.tasks import load_task
from server.release.backbone import backbone
from tests.client.devices import write_model

TASK = load_task("simulations.sources:DIGITS")
IMAGES = np.random.default_rng(0).integers(0, 256, (100, *TASK.input_shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build(architecture("strided-conv-m"), TASK, seed=0)


@pytest.fixture(scope="module")
def content(model: nn.Module) -> bytes:
    return backbone(model, TASK, IMAGES[:50])


def test_the_head_that_a_backbone_came_with_answers_like_the_student(model: nn.Module, content: bytes) -> None:
    found = Backbone(content, TASK)
    features = found.features(IMAGES)
    assert features.shape == (len(IMAGES), len(found.head))
    ours, theirs = features @ found.head, logits(model, IMAGES, TASK).numpy()
    assert np.abs(ours - theirs).max() < 0.1 * np.abs(theirs).max()
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean() > 0.9


def test_features_do_not_depend_on_how_many_images_are_asked_about(content: bytes) -> None:
    found = Backbone(content, TASK)
    assert np.array_equal(found.features(IMAGES)[7:8], found.features(IMAGES[7:8]))
    assert found.features(IMAGES[:0]).shape == (0, len(found.head))


def test_a_student_without_a_linear_end_is_no_backbone() -> None:
    pooled = nn.Sequential(nn.Conv2d(1, TASK.classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ExportError, match="last layer is not linear"):
        backbone(pooled, TASK, IMAGES[:50])


def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "backbone.onnx"
    path.write_bytes(content)
    _, sha256 = content_digest(content)
    assert open_backbone(path, sha256, TASK).head.any()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ReleaseError, match="not the run's backbone"):
        open_backbone(path, sha256, TASK)
    with pytest.raises(ReleaseError, match="No such file"):
        open_backbone(tmp_path / "none", sha256, TASK)


def test_a_model_that_is_no_backbone_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "plain.onnx")
    with pytest.raises(ReleaseError, match="no backbone for task"):
        Backbone((tmp_path / "plain.onnx").read_bytes(), TASK)
    with pytest.raises(ReleaseError, match="no backbone for task"):
        Backbone(b"no model", TASK)
