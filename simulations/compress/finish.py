"""After a search: the front, the chosen student taught on all there is and released, its one look at the test set."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fedstill.files import write_folder, write_json
from fedstill.learning import State
from fedstill.models.shapes import Shape, shape_of
from fedstill.release.manifest import Parent
from fedstill.soft_labels import one_hot
from server.compress.figures import measure
from server.compress.learn import PHASES, Candidate, distil
from server.release.aware import Awareness
from server.release.keys import Keys
from server.release.sign import sign_folder
from server.release.student import Released, release
from simulations.compress.finished import Finished
from simulations.compress.front import RULE, choose, pareto
from simulations.compress.picture import write_picture
from simulations.compress.plan import CompressPlan
from simulations.compress.search import Tried
from simulations.run_folder import commit

JSON, PICTURE, STUDENT = "front.json", "front.png", "student"


def finish(
    out: Path,
    plan: CompressPlan,
    run: Finished,
    tried: Sequence[Tried],
    held: Sequence[Tried],
    failed: Sequence[str],
    keys: Keys,
) -> None:
    """Write the front, its picture and the chosen student, the front last: it says that all is there.

    Args:
        out: the search's folder.
        plan: of the search.
        run: the finished run.
        tried: all measured candidates.
        held: those of them that hold the budget, at least one.
        failed: why the others could not be measured.
        keys: that sign the student.
    """
    front = pareto(held)
    best = choose(held, run.judged)
    released = _release(out, plan, run, best, keys)
    chosen = {**_row(best), "test_accuracy": released.accuracy_int8, "released_bytes": released.onnx_bytes}
    hand_made = next((one for one in tried if one.hand_made), None)
    beside = None
    if hand_made is not None:
        beside = chosen if hand_made == best else {**_row(hand_made), **_on_test(out, plan, run, hand_made)}
    found = {
        "device_class": plan.device_class,
        "task": run.task.name,
        "scenario": run.scenario.name,
        "seed": run.scenario.seed,
        "commit": commit(),
        "budget": plan.budget.model_dump(),
        "formats": list(plan.formats),
        "formats_left_out": plan.left_out,
        "steps": plan.steps,
        "trials": len(tried),
        "within_budget": len(held),
        "failed": list(failed),
        "validation": {"samples": run.judged, "labelled": run.labelled},
        "latency_from": plan.latency.source,
        "latency_scale": plan.latency.scale,
        "rule": RULE,
        "front": [_row(one) for one in front],
        "hand_made": beside,
        "chosen": {**chosen, "folder": STUDENT, "refused": released.refused},
    }
    write_picture(out / PICTURE, plan, tried, front, best)
    write_json(out / JSON, found)


def _row(one: Tried) -> dict[str, Any]:
    return {"trial": one.number, "student": one.student, **one.parameters, **asdict(one.figures)}


def _taught(out: Path, plan: CompressPlan, run: Finished, one: Tried) -> tuple[Shape, State]:
    """Return a student distilled once more, from all proxy samples: held-out ones have done their work."""
    shape = shape_of(one.student)
    assert shape is not None
    wanted = one.parameters
    candidate = Candidate(shape, 0.0, wanted["format"], wanted["temperature"], float(wanted.get("alpha", 1.0)))
    return shape, distil(shape, one.state(out), candidate, run.everything(plan.steps), plan.steps, PHASES + 1)


def _on_test(out: Path, plan: CompressPlan, run: Finished, one: Tried) -> dict[str, Any]:
    """Return what the hand-made student, in its format, is worth on the test set, taught like the chosen one."""
    shape, state = _taught(out, plan, run, one)
    images, labels = run.test
    material = replace(run.everything(plan.steps), validation=(images, one_hot(labels, run.task.classes)))
    found = measure(shape, state, one.parameters["format"], material, plan.budget, plan.latency.scale)
    return {"test_accuracy": found.accuracy, "released_bytes": found.bytes}


def _release(out: Path, plan: CompressPlan, run: Finished, best: Tried, keys: Keys) -> Released:
    """Teach, export and check the chosen student, and sign it if it is not refused."""
    scenario, (_, state) = run.scenario, _taught(out, plan, run, best)
    material, how = run.everything(plan.steps), scenario.students.quantization_aware
    aware = None
    if how is not None:
        aware = Awareness(material.images, material.labels, how, best.parameters["temperature"], scenario.seed)
    parent = Parent(
        run=run.folder.name, scenario=scenario.name, seed=scenario.seed, rounds=scenario.rounds, commit=commit()
    )
    results: list[Released] = []

    def fill(folder: Path) -> None:
        # Its devices have not measured this student: their latency is an estimate, which refuses nothing here.
        found = release(
            scenario.task,
            plan.device_class,
            best.student,
            state,
            material.calibration,
            run.test,
            folder,
            plan.budget,
            wanted=best.parameters["format"],
            aware=aware,
        )
        results.append(found)
        if not found.refused:
            assert found.description is not None
            sign_folder(folder, found.description, parent, keys)

    shutil.rmtree(out / STUDENT, ignore_errors=True)
    write_folder(out / STUDENT, fill)
    return results[0]
