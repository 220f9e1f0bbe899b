from dataclasses import replace

import torch

from fedstill.learning import accuracy, build, restored
from fedstill.models import architecture
from fedstill.models.shapes import Shape
from fedstill.tasks import load_task
from server.compress.learn import Candidate, Material, learn
from server.compress.prune import flops
from simulations.sources import load_digits

TASK_NAME = "simulations.sources:DIGITS"
TASK = load_task(TASK_NAME)
ARRAYS = load_digits(None)
SHAPE = Shape("pooled-conv", ((8,), (16, 16)))
STEPS = 112


def test_a_student_that_loses_half_of_its_operations_while_it_distils_still_learns(material: Material) -> None:
    whole = flops(build(SHAPE.build, TASK, seed=0), TASK)
    shape, state = learn(Candidate(SHAPE, 0.5, "float32", 2.0, 0.8), material)
    model = restored(architecture(str(shape)), TASK, state)
    assert flops(model, TASK) <= whole / 2
    images, labels = material.validation
    assert accuracy(model, images, labels.argmax(axis=1), TASK) > 0.6


def test_a_candidate_learns_the_same_whenever_it_is_tried(material: Material) -> None:
    candidate, short = (
        Candidate(SHAPE, 0.25, "float32", 3.0, 0.9),
        replace(material, how=replace(material.how, steps=16)),
    )
    (shape, state), (again, other) = learn(candidate, short), learn(candidate, short)
    assert shape == again
    assert all(torch.equal(state[key], other[key]) for key in state)


def test_temperature_and_alpha_change_what_is_learned(material: Material) -> None:
    short = replace(material, how=replace(material.how, steps=8))
    states = [learn(Candidate(SHAPE, 0.0, "float32", *how), short)[1] for how in ((1.0, 1.0), (6.0, 1.0), (1.0, 0.5))]
    heads = [state["head.weight"] for state in states]
    assert not any(torch.equal(heads[one], heads[other]) for one, other in ((0, 1), (0, 2), (1, 2)))
