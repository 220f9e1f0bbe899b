"""The gRPC service: what a device should run, the files of it, and what devices tell.

Answers come from memory: the catalogue is read in the background, files come in blocks that all devices share. Written
for asyncio: a thousand downloads are a thousand small coroutines, and a device on a slow link costs a chunk.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

import grpc

from fedstill.errors import FedstillError
from fedstill.release.verify import NAME
from protos.delivery_pb2 import Chunk, FetchRequest, NewestReply, NewestRequest, ReportReply, Telemetry
from protos.delivery_pb2_grpc import DeliveryServicer
from server.delivery import rollout as rollouts
from server.delivery.blocks import Blocks, File
from server.delivery.catalogue import Catalogue, Offer, load
from server.delivery.metrics import Metrics
from server.delivery.records import FullError, Records
from server.delivery.rollout import Rollout
from server.delivery.state import State
from server.delivery.telemetry import FAILED, OUTCOMES, Checked, RefusedError, check
from server.release.store import Store

T = TypeVar("T")
Context: TypeAlias = Any  # grpc.aio.ServicerContext; the generated base class allows for threads as well

CHUNK = 1 << 16  # bytes: what an interrupted download loses at most; 5 s of a link with 100 kbit/s
STALLED = 120.0  # seconds for one chunk, after which the device is given up: it resumes where it stopped
LONGEST = 6 * 3600.0  # seconds for one file
_LOG = logging.getLogger(__name__)


class CallError(Exception):
    """What a call ends with instead of an answer: a status code and a reason."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Delivery(DeliveryServicer):
    """The service.

    Args:
        store: where the releases are.
        state: where rollouts and telemetry are kept.
        mutual: whether devices identify themselves with certificates; an id then has to be one of its names.
        clock: seconds since the epoch.

    Attributes:
        metrics: what it counts.
        catalogue: what the store held when it was read last.
    """

    def __init__(self, store: Store, state: State, mutual: bool, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._state = state
        self._mutual = mutual
        self._clock = clock
        self._records = Records(state.telemetry)
        self._recorder = ThreadPoolExecutor(1, "telemetry")
        self._readers = ThreadPoolExecutor(4, "store")
        self._blocks = Blocks(store, self._readers)
        self.metrics = Metrics(lambda: self._recorder.submit(self._records.summary).result())
        self.catalogue = Catalogue()

    async def refresh(self) -> None:
        """Read the store again.

        Raises:
            FedstillError: it can't be read; what was read last is still offered.
        """
        self.catalogue = await self._in_thread(self._readers, load, self._store, self.catalogue, self._named)
        self.metrics.store_age.set(self._clock())

    def close(self) -> None:
        """Finish what is being written."""
        self._readers.shutdown()
        self._recorder.submit(self._records.close)
        self._recorder.shutdown()

    async def Newest(self, request: NewestRequest, context: Context) -> NewestReply:  # noqa: N802  (as in the proto)
        """Answer what a device should run."""
        return await self._answer("Newest", context, self._newest(request, context))

    async def Fetch(  # type: ignore[override]  # noqa: N802  (its base knows generators only, gRPC this as well)
        self, request: FetchRequest, context: Context
    ) -> None:
        """Send a file from a byte on."""
        await self._answer("Fetch", context, self._send(request, context))

    async def Report(self, request: Telemetry, context: Context) -> ReportReply:  # noqa: N802
        """Keep what a device tells; it is on disk before the answer leaves."""
        return await self._answer("Report", context, self._accept(request, context))

    async def _newest(self, request: NewestRequest, context: Context) -> NewestReply:
        self._identify(request.device_id, context)
        name, catalogue = request.device_class, self.catalogue
        offers = catalogue.offers.get(name, {})
        if not offers:
            return NewestReply(granted=False, reason=f"no release for device class {name[:100]!r}")
        rollout = self._state.rollout(name)
        withdrawn = rollout is not None and request.installed_version in rollout.withdrawn
        version = rollouts.version_for(rollout, list(offers), request.device_id, request.installed_version)
        offer = offers.get(version)
        reason = ""
        if not version:
            reason = "nothing is promoted to all devices yet"
        elif offer is None:
            reason = f"version {version} can't be read from the store, or is not good"
        elif offer.expires <= datetime.fromtimestamp(self._clock(), UTC):
            reason = f"the signatures of version {version} expired; the server's `fedstill release renew` renews them"
        if reason or offer is None:
            return NewestReply(granted=False, reason=reason, withdrawn=withdrawn)
        return NewestReply(
            granted=True,
            version=version,
            timestamp=offer.timestamp,
            snapshot=offer.snapshot,
            targets=offer.targets,
            roots=catalogue.roots[request.root_version :],
            withdrawn=withdrawn,
        )

    async def _send(self, request: FetchRequest, context: Context) -> None:
        file = self._file(request)
        sent = self.metrics.sent.labels(request.device_class, str(request.version))
        offset, ends = request.offset, time.monotonic() + LONGEST
        while offset < file.length:
            reason = rollouts.taken_back(self._state.rollout(request.device_class), request.version)
            if reason:
                raise CallError(grpc.StatusCode.FAILED_PRECONDITION, f"version {request.version} is {reason}")
            data = await self._blocks.read(file, offset, CHUNK - offset % CHUNK)
            try:
                async with asyncio.timeout(min(STALLED, ends - time.monotonic())):
                    await context.write(Chunk(offset=offset, data=data))
            except TimeoutError as error:
                reason = f"stopped at byte {offset}: too slow; go on from there"
                raise CallError(grpc.StatusCode.DEADLINE_EXCEEDED, reason) from error
            offset += len(data)
            sent.inc(len(data))

    async def _accept(self, request: Telemetry, context: Context) -> ReportReply:
        try:
            report = check(request)
            self._identify(report.device, context)
            offer = self.catalogue.offers.get(report.device_class, {}).get(report.version)
            if offer is None:
                raise RefusedError(f"{report.device_class} has no version {report.version}")
            accepted = await self._in_thread(self._recorder, self._keep, report, offer)
        except FullError as error:
            raise CallError(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
        except RefusedError as error:
            self.metrics.refused.inc()
            raise CallError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        return ReportReply(accepted_sequence=accepted)

    def _file(self, request: FetchRequest) -> File:
        name, version = request.device_class, request.version
        offer = self.catalogue.offers.get(name, {}).get(version)
        # Only names out of signed targets become paths.
        if offer is None or request.name not in offer.files:
            raise CallError(grpc.StatusCode.NOT_FOUND, "no such device class, version or file")
        reason = rollouts.kept_back(self._state.rollout(name), version)
        if reason:
            text = f"version {version} of {name} is {reason}; ask for the newest again"
            raise CallError(grpc.StatusCode.FAILED_PRECONDITION, text)
        length, _ = offer.files[request.name]
        if request.offset > length:
            raise CallError(grpc.StatusCode.OUT_OF_RANGE, f"{request.name} has {length} bytes")
        return File(f"{name}/{version}/{request.name}", length)

    def _identify(self, device: str, context: Context) -> None:
        """Check that a device says who it is, and with certificates that it is the one that it says."""
        if not NAME.fullmatch(device):
            raise CallError(grpc.StatusCode.INVALID_ARGUMENT, "device_id is no name")
        if not self._mutual:
            return
        known = context.auth_context()
        names = {*known.get("x509_common_name", ()), *known.get("x509_subject_alternative_name", ())}
        if device.encode() not in names:
            raise CallError(grpc.StatusCode.PERMISSION_DENIED, f"the certificate is not that of device {device}")

    def _keep(self, report: Checked, offer: Offer) -> int:
        """Store a report, and pause the rollout that it is about if it has to."""
        accepted = self._records.add(report, offer.task, offer.student, self._clock())
        if report.outcome in FAILED:
            facts: dict[str, object] = {"device": report.device, "device_class": report.device_class}
            facts |= {"version": report.version, "outcome": OUTCOMES[report.outcome], "detail": report.detail}
            _LOG.warning("release failed on a device", extra=facts)

            def pause(rollout: Rollout | None) -> Rollout | None:
                if rollout is None or rollout.candidate != report.version or rollout.paused:
                    return None
                outcomes = self._records.outcomes(report.device_class, report.version, rollout.resumed_at)
                reason = rollouts.reason_to_pause(rollout, outcomes)
                return rollouts.paused(rollout, reason) if reason else None

            changed = self._state.change(report.device_class, pause)
            if changed is not None:
                self.metrics.pauses.inc()
                reason = {"device_class": report.device_class, "reason": changed.paused}
                _LOG.warning("rollout paused", extra=reason)
        return accepted

    def _named(self, name: str) -> set[int]:
        try:
            rollout = self._state.rollout(name)
        except FedstillError:  # concerns this class alone, whose calls tell it
            return set()
        return set() if rollout is None else {rollout.current, rollout.candidate}

    async def _in_thread(self, threads: Executor, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, call, *arguments)

    async def _answer(self, method: str, context: Context, work: Coroutine[Any, Any, T]) -> T:
        """Do a call's work, count it, and turn what goes wrong in it into a status."""
        started, code = time.monotonic(), grpc.StatusCode.OK
        self.metrics.active.labels(method).inc()
        try:
            return await work
        except CallError as error:
            code, reason = error.code, str(error)
        except FedstillError as error:
            code, reason = grpc.StatusCode.UNAVAILABLE, "the server can't read or write what it needs; try again later"
            _LOG.error("call failed", extra={"method": method, "reason": str(error)})
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception:
            code, reason = grpc.StatusCode.INTERNAL, "the server failed; try again later"
            _LOG.exception("call failed", extra={"method": method})
        finally:
            self.metrics.active.labels(method).dec()
            self.metrics.calls.labels(method, code.name).inc()
            self.metrics.seconds.labels(method).observe(time.monotonic() - started)
        raise await context.abort(code, reason)
