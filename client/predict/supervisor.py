"""The supervisor: keeps the running release answering while releases come, fail and go.

The student runs in a process of its own. When it crashes or hangs, or a watched one drifts, the request that found out
is answered by what the device goes back to; when a newer release is switched in, requests go to the old student until
the new one is loaded and has answered. This process imports neither NumPy nor the runtime.
"""

import contextlib
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from client.predict.student import ANSWER, Answer, Student, StudentError
from client.updates.home import STATE, Home
from client.updates.state import Installed
from client.updates.telemetry import Figures, enqueue
from client.updates.watch import Rules, begin, drift, give_up, judged, verdict
from fedstill.errors import FedstillError
from protos.delivery_pb2 import OUTCOME_COMMITTED, OUTCOME_ROLLED_BACK, OUTCOME_RUNNING, Outcome

KEPT = 1000  # latencies; and predictions whose labels are compared
FAILURES = 3  # in a row of a release that was kept: then the one before it is better
PAUSE = 10.0  # seconds between two attempts to load what can't be loaded
IDLE = 5.0  # seconds without a request after which a watched student is asked something
REPORT = 3600.0  # seconds between two reports of a release that runs


class NothingRunsError(FedstillError):
    """No release can answer."""


@dataclass
class _Serving:
    """A loaded release and what it did since; `before` are the predicted labels that drift is measured from."""

    installed: Installed
    student: Student
    watched: bool
    before: Mapping[str, int]
    since: float = field(default_factory=time.monotonic)
    asked: float = field(default_factory=time.monotonic)
    labels: Counter[str] = field(default_factory=Counter)
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT))
    milliseconds: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    right: int = 0
    labelled: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, answer: Answer, label: str | None) -> None:
        predicted = self.student.labels[answer.logits.index(max(answer.logits))]
        with self.lock:
            self.asked = time.monotonic()
            self.labels[predicted] += 1
            self.recent.append(predicted)
            self.milliseconds.append(answer.milliseconds)
            if label is not None:
                self.labelled += 1
                self.right += label == predicted

    def predicted(self) -> Counter[str]:
        """Return how often each label was predicted since it serves."""
        with self.lock:
            return self.labels.copy()

    def figures(self, least: int) -> Figures:
        """Return what was measured, drift only from so many predictions on."""
        with self.lock:
            milliseconds, now = sorted(self.milliseconds), Counter(self.recent)
            right, labelled = self.right, self.labelled
        found = drift(self.before, now) if self.before and now.total() >= least else None
        return Figures(milliseconds, self.student.peak_rss(), found, now.total(), right, labelled)


@dataclass(frozen=True)
class Reply:
    """An answer and who gave it.

    Attributes:
        version: of the release.
        labels: names of the classes, in the order of the logits.
        answer: the student's.
    """

    version: int
    labels: tuple[str, ...]
    answer: Answer


class Supervisor:
    """Serves one device's running release. Any thread may ask; one more calls `tick` about each second.

    Args:
        home: of the device; this must be its only supervisor (`Home.predicting`).
        rules: when a watched release is kept.
        answer: seconds in which a student must answer one image.
    """

    def __init__(self, home: Home, rules: Rules, answer: float = ANSWER) -> None:
        self._home, self._rules, self._answer = home, rules, answer
        self._lock = threading.RLock()  # held while what serves is replaced, never while it answers
        self._serving: _Serving | None = None
        self._failures = 0
        self._stamp: tuple[int, int] | None = None
        self._pause = 0.0
        self._reported = time.monotonic()
        self._reason = "no release is installed"

    def ask(self, pixels: bytes, label: str | None = None) -> Reply:
        """Return what the running release says about one image.

        Args:
            pixels: uint8 `[channels, height, width]` in C order.
            label: what it really is, where somebody knows; counted, not kept.

        Raises:
            NothingRunsError: no release can answer.
            ValueError: not an image of the release's shape.
        """
        tried = set[int]()
        while (serving := self._current()) is not None:
            version, student = serving.installed.version, serving.student
            if len(pixels) != student.size:
                raise ValueError(f"{len(pixels)} bytes, but an image {student.shape} has {student.size}")
            try:
                answer = student.answer(pixels)
            except StudentError as error:
                if self._failed(serving, str(error), again=version in tried):
                    if version in tried:
                        raise NothingRunsError(f"version {version}: twice with this image: {error}") from error
                    tried.add(version)
                continue
            self._failures = 0
            serving.count(answer, label)
            return Reply(version, student.labels, answer)
        raise NothingRunsError(self._reason)

    def _current(self) -> _Serving | None:
        if self._serving is not None:
            return self._serving
        with self._lock:  # another one may be on its way
            return self._serving

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image.

        Raises:
            NothingRunsError: no release can answer.
        """
        serving = self._current()
        if serving is None:
            raise NothingRunsError(self._reason)
        return serving.student.shape

    def tick(self) -> None:
        """Load what the state names now, ask an idle watched student something, judge it, report."""
        with self._lock:
            self._refresh()
            serving = self._serving
            if serving is None:
                return
            if serving.watched:
                self._watch(serving)
            elif not serving.installed.classes and serving.predicted().total() >= self._rules.least:
                self._learn_labels(serving)
            if time.monotonic() - self._reported > REPORT:
                self._report(serving, OUTCOME_RUNNING)

    def close(self) -> None:
        """Report and end the student; a watch that ends with it has not failed."""
        with self._lock:
            if self._serving is not None:
                self._report(self._serving, OUTCOME_RUNNING)
                if self._serving.watched:
                    version = self._serving.installed.version
                    with contextlib.suppress(OSError):  # a full disk keeps the count as it is
                        self._home.change(lambda state: state.stopped(version))
                self._serving.student.close()
            self._serving = None

    def status(self) -> dict[str, object]:
        """Return what runs and how, for people and programs."""
        serving = self._serving
        if serving is None:
            return {"version": None, "reason": self._reason}
        figures = serving.figures(self._rules.least)
        return {
            "version": serving.installed.version,
            "file": serving.installed.file,
            "watched": serving.watched,
            "labels": serving.student.labels,
            "shape": serving.student.shape,
            "answered": serving.predicted().total(),
            "median_ms": figures.milliseconds[len(figures.milliseconds) // 2] if figures.milliseconds else None,
            "peak_rss_bytes": figures.peak_rss,
            "drift": figures.drift,
            "pid": serving.student.pid,
        }

    def _refresh(self) -> None:
        """Serve what the state names, if it names something else than before."""
        found = (self._home.folder / STATE).stat()
        stamp = (found.st_ino, found.st_mtime_ns)
        if stamp == self._stamp and (self._serving is not None or time.monotonic() < self._pause):
            return
        self._stamp, self._pause = stamp, time.monotonic() + PAUSE
        while True:
            state = self._home.state()
            wanted, old = state.running, self._serving
            # A watched release is compared with the last good one, a kept one with itself while it was watched.
            judge = next(iter(state.good), None) if state.watched else wanted
            before = judge.classes if judge else {}
            if wanted is None:
                self._replace(None)
                return
            if old is not None and (old.installed.version, old.installed.file) == (wanted.version, wanted.file):
                old.installed, old.watched, old.before = wanted, state.watched, before
                return
            reason = begin(self._home, wanted.version, self._rules) if state.watched else None
            try:
                if reason is None:
                    self._replace(_Serving(wanted, self._load(wanted), state.watched, before))
                    return
            except StudentError as error:
                reason = str(error)
            if not self._back(wanted, state.watched, reason, Figures()):
                return

    def _load(self, wanted: Installed) -> Student:
        """Load a student that answers: an image of zeros, what it says about it does not matter."""
        student = Student(self._home.slot(wanted.version), wanted.file, wanted.sha256, self._answer)
        try:
            student.answer(bytes(student.size))
        except StudentError:
            student.close()
            raise
        return student

    def _replace(self, new: _Serving | None) -> None:
        old, self._serving, self._failures = self._serving, new, 0
        if old is not None:
            old.student.retire()  # whoever is being answered by it gets the answer

    def _failed(self, serving: _Serving, reason: str, again: bool) -> bool:
        """Bring back something that answers; return False if another thread has done so since.

        Args:
            serving: what failed.
            reason: how.
            again: whether the same image did it before: one image alone drives no kept release away.
        """
        with self._lock:
            if self._serving is not serving:
                return False
            failures = self._failures + (not again)
            figures = serving.figures(self._rules.least)
            self._serving, self._stamp = None, None
            watched = self._home.state().watches(serving.installed.version)
            if watched or failures >= FAILURES:
                self._back(serving.installed, watched, reason, figures)
            self._refresh()
            self._failures = failures if failures < FAILURES else 0
            return True

    def _back(self, failed: Installed, watched: bool, reason: str, figures: Figures) -> bool:
        """Go back from a release that failed, and return whether the state names another one now.

        One that was kept is left only for an earlier good one: else it is tried again and again.
        """
        self._reason = f"version {failed.version}: {reason}"
        if not watched and not self._home.state().good:
            return False
        give_up(self._home, failed.version, reason)
        with contextlib.suppress(OSError):  # on a full disk the report is lost, and not the good release
            enqueue(self._home, failed.version, OUTCOME_ROLLED_BACK, reason, failed.file, figures)
        return True

    def _watch(self, serving: _Serving) -> None:
        if time.monotonic() - serving.asked > IDLE:
            try:
                serving.student.answer(bytes(serving.student.size))
            except StudentError as error:
                self._failed(serving, str(error), again=False)
                return
            serving.asked = time.monotonic()
        reason = verdict(self._rules, serving.before, serving.predicted(), time.monotonic() - serving.since)
        if reason is None:
            return
        version, figures = serving.installed.version, serving.figures(self._rules.least)
        if reason:
            self._back(serving.installed, True, reason, figures)
        else:
            labels = judged(serving.predicted(), self._rules)
            self._home.change(lambda state: state.committed(version, labels))
            enqueue(self._home, version, OUTCOME_COMMITTED, "", serving.installed.file, figures)
        self._refresh()

    def _learn_labels(self, serving: _Serving) -> None:
        """Keep which labels a release predicts here, to judge later ones by, once there are enough."""
        version, labels = serving.installed.version, serving.predicted()
        self._home.change(lambda state: state.learned(version, labels))
        self._refresh()

    def _report(self, serving: _Serving, outcome: Outcome) -> None:
        self._reported = time.monotonic()
        enqueue(
            self._home,
            serving.installed.version,
            outcome,
            "",
            serving.installed.file,
            serving.figures(self._rules.least),
        )


@contextlib.contextmanager
def supervising(home: Home, rules: Rules, answer: float = ANSWER, every: float = 1.0) -> Iterator[Supervisor]:
    """Be the device's supervisor, ticking in a thread of its own.

    Args:
        home: of the device.
        rules: when a watched release is kept.
        answer: seconds in which a student must answer one image.
        every: seconds between two ticks.

    Raises:
        ConfigError: another one is at work, or the state can't be read.
    """
    with home.predicting():
        supervisor, ended = Supervisor(home, rules, answer), threading.Event()

        def ticking() -> None:
            told = ""
            while not ended.wait(every):
                try:
                    supervisor.tick()
                except Exception as error:  # whatever it is: requests are answered, and the next tick may do better
                    if str(error) != told:
                        print(f"fedstill: {error}", file=sys.stderr, flush=True)
                    told = str(error)

        supervisor.tick()
        thread = threading.Thread(target=ticking, daemon=True)
        thread.start()
        try:
            yield supervisor
        finally:
            ended.set()
            thread.join()
            supervisor.close()
