"""How are prompts answered? By vLLM in a worker process, started at the first question and gone at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from models.llm.component import Component, Question
from models.llm.errors import EngineStartError, EngineStoppedError, PromptTooLongError
from models.llm.protocol import (
    REPLY,
    Answered,
    Ask,
    EngineConfig,
    Failed,
    Generation,
    Reply,
    Start,
    TooLong,
)
from models.llm.weights import ModelRef

__all__ = ["Engine", "EngineConfig", "EngineUsage", "Generation", "Question", "TextEngine"]

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)


class EngineUsage(BaseModel):
    """What an engine has cost so far.

    Attributes:
        start_seconds: from the first question to a loaded model; 0 if nothing was asked.
        generate_seconds: tokenizing and generating, summed over batches.
        tokens_in, tokens_out: prompt and answer tokens.
        peak_rss_mib: peak resident memory of the worker process.
    """

    start_seconds: float = 0.0
    generate_seconds: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    peak_rss_mib: float = 0.0


class TextEngine(Protocol):
    """What asking rows needs of an engine."""

    @property
    def usage(self) -> EngineUsage: ...

    @property
    def batch_size(self) -> int: ...

    def generate(self, component: Component[In, Out], questions: Sequence[Question]) -> Iterator[Generation]: ...


class Engine:
    """vLLM on one model, on the processor or the GPU that the installed vLLM is built for.

    A context manager. Nothing starts before the first question is asked; on leaving, the worker process is ended
    and its memory is free.

    Args:
        model: from ``models.llm.weights``.
        config: how vLLM is run.
    """

    def __init__(self, model: ModelRef, config: EngineConfig | None = None) -> None:
        self.model = model
        self.config = config or EngineConfig()
        self.usage = EngineUsage()
        self._worker: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None

    @property
    def batch_size(self) -> int:
        return self.config.batch_size

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def generate(self, component: Component[In, Out], questions: Sequence[Question]) -> Iterator[Generation]:
        """One generation a question, in order, ``config.batch_size`` of them at a time.

        Raises:
            EngineStartError: vLLM is not installed, has too little memory, can't load the model, or takes too long.
            EngineStoppedError: it ended while questions were waiting.
            PromptTooLongError: a prompt leaves no room for its answer.
        """
        for first in range(0, len(questions), self.batch_size):
            worker = self._worker or self._start()
            ask = Ask(questions=list(questions[first : first + self.batch_size]), sampling=component.sampling)
            reply = _exchange(worker, ask)
            if isinstance(reply, TooLong):
                raise PromptTooLongError.over(component.name, reply.count, reply.longest, reply.limit)
            if not isinstance(reply, Answered):
                why = reply.reason if isinstance(reply, Failed) else self._why_it_ended()
                self.close()
                raise EngineStoppedError.during(component.name, len(questions) - first, why)
            self.usage = EngineUsage(
                start_seconds=self.usage.start_seconds,
                generate_seconds=self.usage.generate_seconds + reply.seconds,
                tokens_in=self.usage.tokens_in + sum(one.tokens_in for one in reply.generations),
                tokens_out=self.usage.tokens_out + sum(one.tokens_out for one in reply.generations),
                peak_rss_mib=reply.peak_rss_mib,
            )
            yield from reply.generations

    def close(self) -> None:
        """End the worker process, if one runs; the next question starts a new one."""
        worker, self._worker = self._worker, None
        if worker is not None:
            if worker.stdin is not None:
                with contextlib.suppress(BrokenPipeError):  # It ended first, with a request unread.
                    worker.stdin.close()
            try:
                worker.wait(timeout=5)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            if worker.stdout is not None:
                worker.stdout.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _start(self) -> subprocess.Popen[str]:
        started = time.perf_counter()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the worker
        self._worker = worker = subprocess.Popen(
            [sys.executable, "-m", "models.llm.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=engine_environment(),
            encoding="utf-8",
        )
        late = threading.Event()

        def give_up() -> None:
            late.set()
            worker.kill()

        timer = threading.Timer(self.config.start_timeout_seconds, give_up)
        timer.start()
        try:
            reply = _exchange(worker, Start(model=self.model.path, dtype=self.model.dtype, config=self.config))
        finally:
            timer.cancel()
        if reply is None or isinstance(reply, Failed):
            why = reply.reason if reply else self._why_it_ended()
            self.close()
            if late.is_set():
                raise EngineStartError.timed_out(str(self.model.path), self.config.start_timeout_seconds)
            raise EngineStartError.failed(str(self.model.path), why)
        self.usage = self.usage.model_copy(
            update={"start_seconds": self.usage.start_seconds + time.perf_counter() - started}
        )
        return worker

    def _why_it_ended(self) -> str:
        """The signal that ended the worker, else the last line that it logged."""
        code = self._worker.wait() if self._worker else 0
        if code < 0:
            name = signal.Signals(-code).name
            return f"its process was killed ({name}){', most likely for want of memory' if name == 'SIGKILL' else ''}"
        lines: list[str] = []
        if self._log is not None:
            self._log.seek(0)
            lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else f"its process ended with status {code}"


def engine_environment() -> dict[str, str]:
    """What vLLM's processes find in their environment: offline, quiet, waiting passively."""
    environment = dict(os.environ)
    # It would override EngineConfig.kv_cache_mib.
    environment.pop("VLLM_CPU_KVCACHE_SPACE", None)
    root = str(Path(__file__).parents[2])
    environment.update(
        PYTHONPATH=os.pathsep.join(part for part in (root, environment.get("PYTHONPATH")) if part),
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        # The worker is the engine's process already: a second one doubles the start and the memory.
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_HOST_IP="127.0.0.1",
        VLLM_NO_USAGE_STATS="1",
        # Threads that spin while they wait make the engine ten times slower beside any other busy process.
        OMP_WAIT_POLICY="PASSIVE",
        VLLM_LOGGING_LEVEL="ERROR",
    )
    shared = Path(sys.prefix) / "share" / "millrace"
    if os.access(shared, os.W_OK):
        # What it learns of a model's class costs 8 s once an environment, and not once a home folder.
        environment.setdefault("VLLM_CACHE_ROOT", str(shared / "vllm"))
    return environment


def _exchange(worker: subprocess.Popen[str], request: BaseModel) -> Reply | None:
    """The worker's reply; None if it ended without one."""
    assert worker.stdin is not None and worker.stdout is not None
    try:
        worker.stdin.write(request.model_dump_json() + "\n")
        worker.stdin.flush()
        return REPLY.validate_json(worker.stdout.readline())
    except (BrokenPipeError, ValidationError):
        return None
