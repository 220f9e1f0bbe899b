"""What the service counts, for Prometheus and whatever else reads OpenMetrics.

Labels are names and versions that are in the store, methods and status codes: no device can add one.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.delivery.summary import Summary

_SECONDS = (0.001, 0.01, 0.1, 1, 10, 60, 600)
_BY_VERSION = ("device_class", "version")


class Metrics:
    """Counters of one service.

    Args:
        summary: returns what devices told; asked whenever somebody reads the metrics.
    """

    def __init__(self, summary: Callable[[], Summary]) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.calls = Counter("fedstill_calls", "Answered calls.", ("method", "code"), registry=own)
        self.seconds = Histogram(
            "fedstill_call_seconds", "Duration of calls.", ("method",), buckets=_SECONDS, registry=own
        )
        self.active = Gauge("fedstill_active_calls", "Calls that are being answered.", ("method",), registry=own)
        self.sent = Counter("fedstill_sent_bytes", "Bytes of releases sent.", _BY_VERSION, registry=own)
        self.refused = Counter("fedstill_refused_reports", "Reports of devices that were refused.", registry=own)
        self.pauses = Counter("fedstill_rollout_pauses", "Rollouts paused by their thresholds.", registry=own)
        self.store_age = Gauge("fedstill_store_read_timestamp_seconds", "When the store was read last.", registry=own)
        ProcessCollector(registry=own)
        self.registry.register(_Told(summary))


class _Told(Collector):
    def __init__(self, summary: Callable[[], Summary]) -> None:
        self._summary = summary

    def describe(self) -> list[Metric]:
        """Return nothing: what there is to tell is known when it is asked for."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return what devices told, by class and version."""
        figures = {
            "latency_ms_p50": "Median over devices of the median milliseconds of a sample.",
            "latency_ms_p99": "Median over devices of the 99th percentile, in milliseconds.",
            "peak_rss_bytes": "Median over devices of the peak memory.",
            "temperature_celsius": "The hottest device.",
            "power_watts": "Median over devices.",
            "accuracy": "On the devices' labelled samples.",
            "drift": "Median distance of the predicted classes from those of the self-test period.",
        }
        families = {
            name: GaugeMetricFamily(f"fedstill_device_{name}", text, labels=_BY_VERSION)
            for name, text in figures.items()
        }
        outcomes = GaugeMetricFamily(
            "fedstill_devices", "Devices by their latest outcome.", labels=(*_BY_VERSION, "outcome")
        )
        for found in self._summary().found:
            labels = (found.device_class, str(found.version))
            for outcome, count in found.outcomes.items():
                outcomes.add_metric((*labels, outcome), count)
            for name, family in families.items():
                value = getattr(found, name)
                if value is not None:
                    family.add_metric(labels, value)
        yield outcomes
        yield from families.values()
