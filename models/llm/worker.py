"""How does vLLM run apart from the process that asks it?

``python -m models.llm.worker``, started by ``models.llm.engine`` only. In a process of its own, vLLM's threads,
environment and memory are gone when it ends, and running out of memory ends it alone.
"""

from __future__ import annotations

import os
import queue
import resource
import sys
import threading
import time
from typing import TYPE_CHECKING, TextIO

from pydantic import BaseModel

from models.llm.protocol import Answered, Ask, Failed, Generation, Start, Started, TooLong

if TYPE_CHECKING:
    from vllm import LLM


def main() -> int:
    # vLLM and its libraries print; the replies keep the real standard output for themselves.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests = _requests()
    try:
        llm = _load(Start.model_validate_json(requests.get()))
    except Exception as error:
        _reply(replies, Failed(reason=_reason(error)))
        return 1
    _reply(replies, Started())
    while True:
        ask = Ask.model_validate_json(requests.get())
        try:
            _reply(replies, _answer(llm, ask))
        except Exception as error:
            _reply(replies, Failed(reason=_reason(error)))
            return 1


def _requests() -> queue.Queue[str]:
    """Lines of standard input; its end (the asking process closed it, or died) ends this process at once."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


def _load(start: Start) -> LLM:
    from vllm import LLM

    config = start.config
    return LLM(
        str(start.model),
        dtype=start.dtype,  # type: ignore[arg-type]  # vLLM checks the name
        seed=config.seed,
        max_model_len=config.max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=max(config.max_num_batched_tokens, config.max_model_len),
        kv_cache_memory_bytes=config.kv_cache_mib * 2**20,
        enforce_eager=config.enforce_eager,
        # Instructions and examples open every prompt of a component: computed once.
        enable_prefix_caching=True,
        # Compact JSON: a grammar without white space saves tokens in every answer.
        structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
        trust_remote_code=False,
        disable_log_stats=True,
    )


def _answer(llm: LLM, ask: Ask) -> Answered | TooLong:
    from vllm import SamplingParams, TokensPrompt
    from vllm.sampling_params import StructuredOutputsParams

    started = time.perf_counter()
    tokenizer = llm.get_tokenizer()
    texts: list[str] = [
        tokenizer.apply_chat_template(
            [message.model_dump() for message in question.messages],  # type: ignore[misc]  # vLLM's type is a union of dicts
            tokenize=False,
            add_generation_prompt=True,
        )
        for question in ask.questions
    ]
    # The template has written the special tokens; a title can't bring any, see component.py.
    prompts: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    limit = llm.model_config.max_model_len - ask.sampling.max_tokens
    too_long = [len(prompt) for prompt in prompts if len(prompt) > limit]
    if too_long:
        return TooLong(count=len(too_long), longest=max(too_long), limit=limit)
    sampling = [
        SamplingParams(
            temperature=ask.sampling.temperature,
            seed=ask.sampling.seed,
            max_tokens=ask.sampling.max_tokens,
            structured_outputs=StructuredOutputsParams(json=question.json_schema),
        )
        for question in ask.questions
    ]
    outputs = llm.generate([TokensPrompt(prompt_token_ids=ids) for ids in prompts], sampling, use_tqdm=False)
    generations = [
        Generation(
            text=output.outputs[0].text,
            tokens_in=len(output.prompt_token_ids or ()),
            tokens_out=len(output.outputs[0].token_ids),
            finished=output.outputs[0].finish_reason == "stop",
        )
        for output in outputs
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return Answered(generations=generations, seconds=time.perf_counter() - started, peak_rss_mib=peak)


def _reply(replies: TextIO, reply: BaseModel) -> None:
    replies.write(reply.model_dump_json() + "\n")
    replies.flush()


def _reason(error: Exception) -> str:
    """The first line of what went wrong."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


if __name__ == "__main__":
    # Not sys.exit: vLLM's threads and exit handlers have nothing to save, and may hang.
    code = main()
    sys.stderr.flush()
    os._exit(code)
