"""How does vLLM's OpenAI-compatible server run? As a child on the loopback, watched, and gone with its starter."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from types import TracebackType

import httpx
from pydantic import BaseModel, ConfigDict, Field

from models.llm.engine import engine_environment
from models.llm.errors import EngineStartError
from models.llm.weights import ModelRef

#: Name under which the model is asked.
SERVED = "model"


class ServerConfig(BaseModel):
    """How vLLM's server is run. The defaults suit a small model on two processor cores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_model_len: int = Field(default=1536, ge=64, description="Longest prompt and answer together, in tokens.")
    max_num_seqs: int = Field(default=64, ge=1, description="Answers that are decoded side by side.")
    kv_cache_mib: int = Field(default=512, ge=64, description="Memory for attention keys and values, in MiB.")
    start_timeout_seconds: float = Field(default=600.0, gt=0)


class VllmServer:
    """vLLM's server on a free port of the loopback. A context manager: on leaving, its processes are gone.

    Args:
        model: from ``models.llm.weights``.
        config: how vLLM is run.

    Attributes:
        url: where it answers, such as ``http://127.0.0.1:41234``.
        pid: of its first process, whose process group holds the others too.
    """

    def __init__(self, model: ModelRef, config: ServerConfig | None = None) -> None:
        self.model = model
        self.config = config or ServerConfig()
        self.url = ""
        self.pid = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the server

    def __enter__(self) -> VllmServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._log.close()

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            EngineStartError: it ended before, or takes longer than ``config.start_timeout_seconds``.
        """
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._child = child = subprocess.Popen(
            [sys.executable, "-m", "serving.components.child", "--model", str(self.model.path), *self._options(port)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=engine_environment(),
            start_new_session=True,
        )
        self.pid = child.pid
        try:
            # One client for all looks: each new one reads the certificates of the machine, a core's work for 50 ms.
            with httpx.Client(base_url=self.url, timeout=2, trust_env=False) as probe:
                self._wait(child, probe)
        except BaseException:  # an interruption too: what was started is stopped
            self.stop()
            raise

    def stop(self) -> None:
        """End it and all that it started; nothing happens if it does not run."""
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=8)
        # Its engine's process may outlive it, when it was killed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    def last_words(self) -> str:
        """The signal that ended it, else the last error or line that it logged."""
        code = self._child.poll() if self._child else None
        if code is not None and code < 0:
            return f"its process was killed ({signal.Signals(-code).name})"
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 65_536))
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if "Error: " in line]
        return (errors or lines or [f"its process ended with status {code}"])[-1]

    def _wait(self, child: subprocess.Popen[bytes], probe: httpx.Client) -> None:
        deadline = time.monotonic() + self.config.start_timeout_seconds
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if probe.get("/health").status_code == 200:
                    return
            if child.poll() is not None:
                raise EngineStartError.failed(str(self.model.path), self.last_words())
            if time.monotonic() > deadline:
                raise EngineStartError.timed_out(str(self.model.path), self.config.start_timeout_seconds)
            time.sleep(0.25)

    def _options(self, port: int) -> list[str]:
        config = self.config
        options: dict[str, object] = {
            "host": "127.0.0.1",
            "port": port,
            "served-model-name": SERVED,
            "dtype": self.model.dtype,
            "seed": 0,
            # Not the sampling that the model's authors recommend: the component's own.
            "generation-config": "vllm",
            "max-model-len": config.max_model_len,
            "max-num-seqs": config.max_num_seqs,
            "kv-cache-memory-bytes": config.kv_cache_mib * 2**20,
            # As in the batch: compact JSON, and no graph compilation.
            "structured-outputs-config": json.dumps({"backend": "xgrammar", "disable_any_whitespace": True}),
        }
        given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        # One line a request costs more than it tells.
        return [*given, "--enforce-eager", "--enable-prefix-caching", "--disable-uvicorn-access-log"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
