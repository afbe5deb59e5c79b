"""What does one execution of a task take? Time, CPU, memory, bytes, tokens, GPU time: of the process and its children.

Sampled: what a child does between the last sample and its end is missed. Bytes are those that went through read and
write calls, whether the disk, the page cache or a socket had them; memory-mapped files are not among them. Linux counts
them; elsewhere they are not known, and so is GPU time without NVIDIA's management library (``pynvml``).
"""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import TypedDict

_SAMPLE_SECONDS = 0.2


class Used(TypedDict):
    """The columns of a ``costs`` row that say what was used."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    read_bytes: int | None
    written_bytes: int | None
    tokens_in: int | None
    tokens_out: int | None
    gpu_seconds: float | None


class Meter:
    """Measures from its entry to its exit."""

    def __enter__(self) -> Meter:
        import psutil

        self.process = psutil.Process()
        self.peak_mib = 0.0
        self.gpu_seconds: float | None = None
        self.tokens: tuple[int, int] | None = None
        self._children: dict[int, tuple[float, int, int]] = {}
        self._nvml = _nvml()
        self.started_at = datetime.now(UTC)
        self._clock = self._sampled = time.perf_counter()
        self._before = self._sample()
        self._token = _METER.set(self)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        _METER.reset(self._token)
        self._after = self._sample()
        self.seconds = time.perf_counter() - self._clock

    def used(self) -> Used:
        """What was used between entry and exit."""
        cpu, read, written = (max(0, after - before) for before, after in zip(self._before, self._after, strict=True))
        counted = hasattr(self.process, "io_counters")
        return Used(
            seconds=self.seconds,
            cpu_seconds=cpu,
            peak_mib=self.peak_mib,
            read_bytes=int(read) if counted else None,
            written_bytes=int(written) if counted else None,
            tokens_in=self.tokens[0] if self.tokens else None,
            tokens_out=self.tokens[1] if self.tokens else None,
            gpu_seconds=self.gpu_seconds,
        )

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> tuple[float, int, int]:
        """Note the memory in use; CPU seconds and bytes so far. A child that has ended keeps its last reading."""
        import psutil

        resident = self.process.memory_info().rss
        family = {self.process.pid}
        for child in self.process.children(recursive=True):
            try:
                self._children[child.pid] = _counters(child)
                resident += child.memory_info().rss
                family.add(child.pid)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        self.peak_mib = max(self.peak_mib, resident / 2**20)
        now = time.perf_counter()
        if self._nvml is not None:
            self.gpu_seconds = (self.gpu_seconds or 0.0) + (now - self._sampled) * _gpus_in_use(self._nvml, family)
        self._sampled = now
        cpu, read, written = zip(_counters(self.process), *self._children.values(), strict=True)
        return sum(cpu), sum(read), sum(written)


def spent(tokens_in: int, tokens_out: int) -> None:
    """Note what a language model was given and generated, for the task that is running."""
    meter = _METER.get()
    if meter is not None:
        before = meter.tokens or (0, 0)
        meter.tokens = (before[0] + tokens_in, before[1] + tokens_out)


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


def _counters(process: object) -> tuple[float, int, int]:
    """CPU seconds, bytes read and bytes written by one process so far."""
    import psutil

    assert isinstance(process, psutil.Process)
    times = process.cpu_times()
    try:
        moved = process.io_counters()
        read, written = int(moved.read_chars), int(moved.write_chars)
    except (AttributeError, psutil.AccessDenied):
        read = written = 0
    return float(times.user + times.system), read, written


@lru_cache(maxsize=1)
def _nvml() -> ModuleType | None:
    """NVIDIA's management library, started; None where there is none or no GPU."""
    try:
        nvml = import_module("pynvml")
        nvml.nvmlInit()
    except Exception:
        return None
    return nvml if nvml.nvmlDeviceGetCount() else None


def _gpus_in_use(nvml: ModuleType, family: set[int]) -> int:
    """GPUs on which one of these processes has something."""
    found = 0
    for number in range(nvml.nvmlDeviceGetCount()):
        device = nvml.nvmlDeviceGetHandleByIndex(number)
        found += any(process.pid in family for process in nvml.nvmlDeviceGetComputeRunningProcesses(device))
    return found
