"""What does the service count? Prometheus metrics in a registry of its own, one a process.

Names begin with ``millrace_``; deploy/prometheus has the rules on them and deploy/grafana draws them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SCORES = (-10, -5, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20)
#: Impressions over which the online quality is taken.
_IMPRESSIONS = 2_000


class Metrics:
    """All of the service's metrics. Labels take few values: no user, item or path is ever one."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests by route and status.", "route", "status")
        self.request_seconds = self._histogram("request_seconds", "Seconds from request to answer.", "route")
        self.stage_seconds = self._histogram("stage_seconds", "Seconds by stage of a recommendation.", "stage")
        self.features = self._counter("features", "Users' features by where they came from.", "source")
        self.feature_age = self._gauge("feature_age_seconds", "Age of a view's online rows.", "view")
        self.model_age = self._gauge("model_age_seconds", "Age of the newest interaction of the active model.")
        self.model_info = self._gauge("model_info", "1 for what answers.", "slot", "version", "digest")
        self.champion_behind = self._gauge("champion_behind", "1 if the registry's champion is not what answers.")
        self.top_score = Histogram(
            "millrace_top_score", "Score of the first item.", registry=self.registry, buckets=_SCORES
        )
        self.slot_failures = self._counter("slot_failures", "Answers that a slot could not give.", "slot")
        self.basis = self._counter("basis", "Answers by what was known of the user.", "basis")
        self.feedback = self._counter("feedback_events", "Feedback events.", "kind", "result")
        self.sync_seconds = self._histogram("feedback_sync_seconds", "Seconds of a sync of the feedback log.")
        self.unlanded = self._gauge("feedback_unlanded_bytes", "Bytes of the feedback log that are not in the lake.")
        self.disk_free = self._gauge("disk_free_share", "Free share of the disk with the state folder.")
        self.ctr = self._gauge("online_ctr", "Clicks and ratings per list shown, newest lists.", "version")
        self.ndcg = self._gauge("online_ndcg", "NDCG of what was clicked or rated among the lists shown.", "version")
        self.acts = self._counter("deployment_acts", "Deployment acts.", "act")
        self.explanations = self._counter("explanations", "Answers of the language model.", "result")
        self.llm_seconds = self._histogram("explain_seconds", "Seconds that the language model took.")
        self.up = self._gauge("dependency_up", "Whether a dependency answered when asked last.", "dependency")
        self.drift = self._gauge("drift_psi", "Largest PSI of the newest night.")
        self.refused = self._gauge("batches_refused", "Batches of the newest day that the gate refused.")
        self.promotion_failed = self._gauge("promotion_failed", "1 if the newest night's challenger was refused.")
        self.served_different = self._gauge("served_different", "Served values that differ from the lake, of a sample.")
        self.night_age = self._gauge("night_age_seconds", "Age of the newest published ratings.")
        self._shown: deque[tuple[str, int]] = deque(maxlen=_IMPRESSIONS)
        self._hits: dict[str, set[int]] = {}

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"millrace_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"millrace_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"millrace_{name}", text, labels, registry=self.registry, buckets=_SECONDS)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of a recommendation."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stage_seconds.labels(name).observe(time.perf_counter() - started)

    def impression(self, request_id: str, version: int) -> None:
        """A list was shown."""
        if request_id not in self._hits:
            if len(self._shown) == self._shown.maxlen:
                self._hits.pop(self._shown[0][0], None)
            self._shown.append((request_id, version))
            self._hits[request_id] = set()

    def hit(self, request_id: str, position: int) -> None:
        """An item of a list that was shown was clicked or rated; positions count from 1."""
        if request_id in self._hits:
            self._hits[request_id].add(position)

    def quality(self) -> dict[int, tuple[float, float, int]]:
        """Of each model version over the newest lists shown: hits a list, mean NDCG of the hits, lists.

        NDCG with gain 1 for a hit: sum of 1 / log2(1 + position) over the same for the hits moved to the top
        (Järvelin and Kekäläinen, ACM TOIS 20(4), 2002); lists without a hit count 0.
        """
        found: dict[int, list[tuple[int, float]]] = {}
        for request_id, version in self._shown:
            hits = self._hits.get(request_id, set())
            gain = sum(1 / np.log2(1 + position) for position in hits)
            best = sum(1 / np.log2(1 + place) for place in range(1, len(hits) + 1))
            found.setdefault(version, []).append((len(hits), float(gain / best) if hits else 0.0))
        return {
            version: (
                float(np.mean([hits for hits, _ in lists])),
                float(np.mean([ndcg for _, ndcg in lists])),
                len(lists),
            )
            for version, lists in found.items()
        }

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        for version, (ctr, ndcg, _) in self.quality().items():
            self.ctr.labels(str(version)).set(ctr)
            self.ndcg.labels(str(version)).set(ndcg)
        return generate_latest(self.registry)
