"""What does the service count? Prometheus metrics of one application, beside those of vLLM itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one application, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "millrace_llm_requests", "Requests by component and outcome.", ["component", "outcome"], registry=registry
        )
        self.seconds = Histogram(
            "millrace_llm_seconds", "Seconds of a request.", ["component"], buckets=_BUCKETS, registry=registry
        )
        self.from_store = Counter(
            "millrace_llm_from_store", "Requests that needed no model.", ["component"], registry=registry
        )
        self.repaired = Counter(
            "millrace_llm_repaired", "Answers that were asked for again.", ["component"], registry=registry
        )
        self.tokens = Counter(
            "millrace_llm_tokens", "Tokens of prompts and answers.", ["component", "kind"], registry=registry
        )
        self.unstored = Counter("millrace_llm_unstored", "Answers that could not be stored.", registry=registry)
        self.restarts = Counter("millrace_llm_engine_restarts", "Times that vLLM was started again.", registry=registry)

    def text(self) -> str:
        """All of them in Prometheus's text format."""
        return generate_latest(self._registry).decode()
