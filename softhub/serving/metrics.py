"""Metrics in Prometheus' format; the number of different label values is bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from softhub.inference.prefix_cache import PrefixUse
from softhub.serving.protocol import Engine

MOST_LABELS = 100
"""Prompts that have a label value of their own; the others are counted as `(other)`."""

_OTHER = "(other)"


class ServerMetrics:
    """Counts requests and tokens, and reads the engine's state when it is asked.

    Args:
        engine: The engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        self._models: set[str] = set()
        self._requests = Counter(
            "softhub_requests",
            "Answered requests.",
            ("route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "softhub_request_seconds",
            "Time until an answer was complete.",
            ("route",),
            registry=self._registry,
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
        )
        self._tokens = Counter(
            "softhub_tokens",
            "Tokens of answered requests.",
            ("kind", "model"),
            registry=self._registry,
        )
        self._registry.register(_EngineCollector(engine))

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_tokens(self, model: str, prompt: int, completion: int) -> None:
        """Count the tokens of an answer; `model` is one that exists."""
        label = model
        if model not in self._models:
            if len(self._models) < MOST_LABELS:
                self._models.add(model)
            else:
                label = _OTHER
        self._tokens.labels("prompt", label).inc(prompt)
        self._tokens.labels("completion", label).inc(completion)

    def text(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """Reads queue and memory when they are asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        state = self._engine.state()
        memory = state.memory
        for name, text, value in (
            ("queue_rows", "Rows that wait.", state.waiting),
            ("running_rows", "Rows that are being answered.", state.running),
            ("loaded_prompts", "Loaded prompts.", memory.prompts),
            ("prompt_vector_bytes", "Vectors of prompts.", memory.vector_bytes),
            ("prefix_bytes", "Keys and values of prompts.", memory.prefix_bytes),
            ("prefix_budget_bytes", "Their budget.", memory.prefix_budget),
        ):
            yield GaugeMetricFamily(f"softhub_{name}", text, value=value)
        uses = _bounded(memory.uses)
        for field in ("hits", "misses", "evictions"):
            family = CounterMetricFamily(
                f"softhub_prefix_{field}",
                f"Keys and values of prompts: {field}.",
                labels=("prompt",),
            )
            for name, use in uses.items():
                family.add_metric((name,), getattr(use, field))
            yield family


def _bounded(uses: Mapping[str, PrefixUse]) -> dict[str, PrefixUse]:
    """Return the uses of the first prompts, and the sum of the others."""
    names = sorted(uses)
    found = {name: uses[name] for name in names[:MOST_LABELS]}
    if names[MOST_LABELS:]:
        rest = [uses[name] for name in names[MOST_LABELS:]]
        found[_OTHER] = PrefixUse(
            sum(use.hits for use in rest),
            sum(use.misses for use in rest),
            sum(use.evictions for use in rest),
        )
    return found
