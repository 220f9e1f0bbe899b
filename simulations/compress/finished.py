"""What a finished run holds for smaller students: its labels, the server's samples, and what its devices told."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedstill.errors import DataError, RunFolderError
from fedstill.fit import Fit
from fedstill.rng import stream
from fedstill.soft_labels import Floats, Ints, one_hot
from fedstill.stored import load_cache
from fedstill.tasks import Images, Task, load_task
from server.checkpoints import Checkpoints
from server.compress.learn import Material
from simulations.assets import check_assets
from simulations.run_folder import CONFIG
from simulations.scenario import Scenario, load_scenario
from simulations.shelf import Shelf
from simulations.summary_file import read_summary

VALIDATION = 500  # samples wanted; where the guard set has fewer, proxy samples are held out
HELD_OUT = 4  # one of so many proxy samples at most


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        folder: of the run.
        scenario: its configuration.
        ids: proxy samples with a label in use, ascending `[samples]`.
        labels: theirs, of teacher and consensus `[samples, classes]`.
    """

    folder: Path
    scenario: Scenario
    ids: Ints
    labels: Floats

    @property
    def task(self) -> Task:
        """What is learned."""
        return load_task(self.scenario.task)

    @property
    def shelf(self) -> Shelf:
        """The run's data."""
        return Shelf(self.folder / "assets")

    @property
    def steps(self) -> int:
        """How many optimizer steps each of the run's class students took from as many labels."""
        how, rounds = self.scenario.students, self.scenario.rounds
        last = how.last if how.last is not None else how.distil
        return (rounds - 1) * how.distil.of(len(self.ids)).steps + last.of(len(self.ids)).steps

    @property
    def temperature(self) -> float:
        """T of the run's class students in its last round."""
        wanted = self.scenario.students.temperature
        return wanted.start if wanted.schedule == "constant" else wanted.end

    @property
    def labelled(self) -> int:
        """Validation samples with a true label: those of the guard."""
        return len(self.shelf.guard.labels)

    @property
    def judged(self) -> int:
        """Validation samples: those of the guard, and proxy samples where these are few."""
        return self.labelled + min(max(0, VALIDATION - self.labelled), len(self.ids) // HELD_OUT)

    def material(self, steps: int) -> Material:
        """Return what candidates learn from and are judged on: guard samples, and proxy samples held out from them."""
        count = self.judged - self.labelled
        order = stream(self.scenario.seed, "validation").permutation(len(self.ids))
        held, kept = np.sort(order[:count]), np.sort(order[count:])
        whole = self.everything(steps)
        guard, guard_labels = whole.validation
        images = np.concatenate([guard, whole.images[held]])
        labels = np.concatenate([guard_labels, self.labels[held]])
        if not len(labels):
            raise DataError(f"{self.folder}: too few labelled samples to judge students on")
        return replace(whole, images=whole.images[kept], labels=self.labels[kept], validation=(images, labels))

    def everything(self, steps: int) -> Material:
        """Return the material with nothing held out but the guard samples: what the last students learn from."""
        shelf, scenario = self.shelf, self.scenario
        server = None
        if scenario.data.server_samples > scenario.data.guard_samples:
            server = (np.array(shelf.server.images), np.array(shelf.server.labels))
        count = min(scenario.students.calibration_samples, len(shelf.proxy))
        return Material(
            task=scenario.task,
            seed=scenario.seed,
            images=np.array(shelf.proxy[self.ids]),
            labels=self.labels,
            server=server,
            validation=self.guard,
            calibration=np.array(shelf.proxy[:count]),
            how=self._how(steps),
        )

    @property
    def guard(self) -> tuple[Images, Floats]:
        """The server's held-out labelled samples, none without a teacher."""
        return np.array(self.shelf.guard.images), one_hot(self.shelf.guard.labels, self.task.classes)

    @property
    def test(self) -> tuple[Images, Ints]:
        """The test set, for one look at the end."""
        return np.array(self.shelf.test.images), np.array(self.shelf.test.labels)

    def _how(self, steps: int) -> Fit:
        settings = self.scenario.students
        return replace((settings.last or settings.distil).of(len(self.ids)), steps=steps)


def check_method(scenario: Scenario, place: str) -> None:
    """Check that a run leaves what a search needs.

    Args:
        scenario: of the run.
        place: what it was read from.

    Raises:
        RunFolderError: its method does not.
    """
    if scenario.method.server:
        raise RunFolderError(f"{place}: method {scenario.method.name} leaves no soft labels to distil from")


def open_run(folder: Path) -> Finished:
    """Return the finished run in a folder.

    Raises:
        RunFolderError: there is no finished run of soft labels in it.
        DataError: its data are damaged.
    """
    if not (folder / CONFIG).is_file():
        raise RunFolderError(f"{folder}: no run here ({CONFIG} is missing); `fedstill simulate` makes one")
    scenario = load_scenario(str(folder / CONFIG))
    check_method(scenario, str(folder))
    if read_summary(folder) is None:
        raise RunFolderError(f"{folder}: this run is not finished; continue it with simulate --resume")
    stored = Checkpoints(folder / "checkpoints").newest()
    if stored is None:
        raise RunFolderError(f"{folder}: its checkpoints, which have the soft labels, are gone; run the scenario anew")
    try:
        cache = load_cache(stored)
        ids = cache.usable(scenario.rounds, scenario.exchange.duration)
        found = Finished(folder, scenario, ids, cache.labels[ids])
        _check(found)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{folder}: damaged run folder: {error}") from error
    return found


def _check(run: Finished) -> None:
    """Check that the run's data fit its task."""
    task, shelf = run.task, run.shelf
    check_assets(shelf, task, "server", "guard", "proxy", "test")
    if not len(run.ids) or run.ids.max() >= len(shelf.proxy) or run.labels.shape[1] != task.classes:
        raise DataError(f"{run.folder}: its labels are none of its proxy samples")
