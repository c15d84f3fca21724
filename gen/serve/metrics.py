"""Figures of the running server, for Prometheus."""

from __future__ import annotations

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gen.serve.models import Models

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)


class Metrics:
    """Counts requests, and reads the engines' own figures when it is asked.

    Args:
        models: what is served.
    """

    CONTENT_TYPE = CONTENT_TYPE_LATEST

    def __init__(self, models: Models) -> None:
        self._models, self._registry = models, CollectorRegistry()
        names: dict[str, Any] = {"registry": self._registry}
        self._requests = Counter("gen_requests", "Requests answered.", ["path", "status"], **names)
        self._seconds = Histogram(
            "gen_request_seconds", "From request to answer.", ["path"], buckets=_SECONDS, **names
        )
        self._first = Histogram(
            "gen_first_token_seconds", "From request to first token, of streams.", buckets=_SECONDS, **names
        )
        self._figures = {
            name: Gauge(f"gen_{name}", text, ["model"], **names)
            for name, text in (
                ("rows", "Texts and beams in the current step."),
                ("waiting", "Requests that have not begun."),
                ("steps", "Steps of the decoder since the model was loaded."),
                ("tokens", "Tokens of finished texts since the model was loaded."),
            )
        }

    def request(self, path: str, status: int, seconds: float, first: float | None) -> None:
        """Counts a request that is over."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)
        if first is not None:
            self._first.observe(first)

    def text(self) -> bytes:
        """All figures in Prometheus's format."""
        for name, served in self._models.served.items():
            for figure, gauge in self._figures.items():
                gauge.labels(name).set(getattr(served.engine, figure))
        return generate_latest(self._registry)
