import numpy as np

from benchmarks.formats import STUDENTS, samples


def test_inputs_fit_the_task_of_each_student() -> None:
    for _, task in STUDENTS.values():
        found = samples(task, 2)
        assert found.shape == (2, *task.input_shape)
        assert found.dtype == np.uint8
