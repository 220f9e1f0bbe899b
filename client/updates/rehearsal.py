"""The watch over a new release where no prediction server is at work: the updater asks it its self-test's images."""

import time
from collections.abc import Callable

from client.predict.student import Student, StudentError
from client.updates.home import Home
from client.updates.watch import Rules, begin
from fedstill.errors import ReleaseError
from fedstill.release.manifest import MANIFEST, read_manifest

Rehearsal = Callable[[Home, Rules], str]


def rehearse(home: Home, rules: Rules) -> str:
    """Watch the running release on the images of its self-test; return "" when it may be kept, else the reason.

    The images say nothing about the labels that it will predict here, so drift is not judged.
    """
    running = home.state().running
    assert running is not None
    reason = begin(home, running.version, rules)
    if reason:
        return reason
    try:
        manifest = read_manifest((home.slot(running.version) / MANIFEST).read_bytes())
    except (OSError, ReleaseError) as error:
        return f"its manifest can't be read any more: {error}"
    images = [image.tobytes() for image in manifest.self_test.pixels()]
    wanted = manifest.self_test.expected[running.file].values().argmax(axis=1)
    until = time.monotonic() + rules.seconds
    try:
        student = Student(home.slot(running.version), running.file, running.sha256)
        try:
            for place in range(rules.predictions):
                logits = student.answer(images[place % len(images)]).logits
                if logits.index(max(logits)) != wanted[place % len(images)]:
                    return f"prediction {place + 1} is of another class than in its self-test"
                if time.monotonic() > until:
                    break
        finally:
            student.close()
    except StudentError as error:
        return str(error)
    return ""
