"""What can go wrong when the service starts, answers, keeps feedback or is switched: typed, each with the way out.

What a caller did wrong is answered with the HTTP status that `status` names and a body of code, message and fix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from lakehouse.errors import MillraceError, examples


class ServingConfigError(MillraceError):
    """The service's settings don't fit together, or would leave it open."""

    code = "MR-SERVING-CONFIG"

    @classmethod
    def key_file(cls, name: str, path: str) -> ServingConfigError:
        return cls(f"The key file {path!r} of {name} can't be read.", fix="Give a readable file with the key in it.")

    @classmethod
    def weak_key(cls, name: str, length: int) -> ServingConfigError:
        return cls(
            f"{name} is shorter than {length} characters or holds others than printable ASCII.",
            fix="Make one, for example with `openssl rand -hex 32`.",
        )

    @classmethod
    def same_keys(cls) -> ServingConfigError:
        return cls(
            "The API key and the admin key are the same.", fix="Give the admin key a value that callers don't have."
        )

    @classmethod
    def no_key(cls) -> ServingConfigError:
        return cls(
            "No API key is set, so anybody who reaches the port could ask.",
            fix="Set MILLRACE_API_KEY (or MILLRACE_API_KEY_FILE); on your own machine, add --no-auth.",
        )

    @classmethod
    def open_beyond_loopback(cls, host: str) -> ServingConfigError:
        return cls(
            f"--no-auth does not go with --host {host}: the port would be open to others.",
            fix="Leave --host at 127.0.0.1, or set MILLRACE_API_KEY and leave --no-auth out.",
        )

    @classmethod
    def port(cls, host: str, port: int, why: str) -> ServingConfigError:
        return cls(f"The service can't listen on {host}:{port}: {why}.", fix="Choose another --port.")


class NotReadyError(MillraceError):
    """There is nothing to serve yet: no champion, no published tables, or no online features."""

    code = "MR-SERVING-NOT-READY"
    status: ClassVar[int] = 503

    @classmethod
    def because(cls, why: str) -> NotReadyError:
        return cls(
            f"There is nothing to serve yet: {why}", fix="Run the nightly job once, then start the service again."
        )


class UnknownItemError(MillraceError):
    """The item that was asked about is not in the catalogue."""

    code = "MR-ITEM-UNKNOWN"
    status: ClassVar[int] = 404

    @classmethod
    def numbered(cls, item_id: int, items: int) -> UnknownItemError:
        return cls(
            f"There is no item {item_id} in the catalogue of {items}.", fix="Take an item_id from a recommendation."
        )


class RequestRefusedError(MillraceError):
    """The request is well-formed and can't be answered: no key, too many, too large, or a filter that names nothing."""

    code = "MR-REQUEST"
    status: ClassVar[int] = 400

    def __init__(self, message: str, *, fix: str, status: int = 400) -> None:
        super().__init__(message, fix=fix)
        self.http = status

    @classmethod
    def genres(cls, unknown: Sequence[str], known: Sequence[str]) -> RequestRefusedError:
        return cls(
            f"The filter names {len(unknown)} genre(s) that no item has: {examples(list(unknown))}.",
            fix=f"Genres are {', '.join(known)}.",
            status=422,
        )

    @classmethod
    def unauthorized(cls) -> RequestRefusedError:
        return cls(
            "The request carries no valid key.",
            fix="Send the header Authorization: Bearer KEY; /admin has a key of its own.",
            status=401,
        )

    @classmethod
    def body(cls) -> RequestRefusedError:
        return cls("The body is no JSON document in UTF-8.", fix="Send one, with content-type application/json.")

    @classmethod
    def host(cls) -> RequestRefusedError:
        return cls(
            "Without keys the service answers only to the names of this machine.",
            fix="Ask 127.0.0.1 or localhost, or start it with MILLRACE_API_KEY.",
            status=421,
        )

    @classmethod
    def too_large(cls, limit: int) -> RequestRefusedError:
        return cls(f"The body is larger than {limit} bytes.", fix="Send fewer events or items at once.", status=413)

    @classmethod
    def too_many(cls, per_second: float) -> RequestRefusedError:
        return cls(
            f"This caller sends more than {per_second:g} requests a second.",
            fix="Wait for as long as the header Retry-After says.",
            status=429,
        )

    @classmethod
    def invalid(cls, problems: Sequence[str]) -> RequestRefusedError:
        return cls(
            f"{len(problems)} value(s) of the request can't be used: {examples(list(problems))}.",
            fix="The document at /openapi.json says what each value may be.",
            status=422,
        )

    @classmethod
    def route(cls, status: int, method: str, path: str) -> RequestRefusedError:
        return cls(f"{method} {path} is not answered here.", fix="The document at /docs lists what is.", status=status)


class ExplanationError(MillraceError):
    """The language model gave no reason: it is not configured, does not answer, or cites what it was not told."""

    code = "MR-EXPLAIN"
    status: ClassVar[int] = 503

    @classmethod
    def not_configured(cls) -> ExplanationError:
        return cls(
            "No language model is configured, so there are no reasons in words.",
            fix="Start `millrace llm serve` and set MILLRACE_LLM_URL; the model's own reasons are in /recommend.",
        )

    @classmethod
    def no_history(cls) -> ExplanationError:
        return cls(
            "Nothing is known that the user has met, and a reason cites only that.",
            fix="Name a user with a history, or send the session's items.",
        )

    @classmethod
    def unavailable(cls, why: str) -> ExplanationError:
        return cls(
            f"The language model gave no reason: {why}.",
            fix="Ask again later; recommendations go on without it. `millrace monitor` shows whether it answers.",
        )


class JournalError(MillraceError):
    """The feedback log can't be written or read, or another service holds it: no event is acknowledged."""

    code = "MR-FEEDBACK-LOG"
    status: ClassVar[int] = 503

    @classmethod
    def held(cls, folder: str) -> JournalError:
        return cls(
            f"Another service writes the feedback log in {folder}.",
            fix="Stop it, or give this one another MILLRACE_STATE: one process owns the log.",
        )

    @classmethod
    def unwritable(cls, folder: str, why: str) -> JournalError:
        return cls(
            f"The feedback log in {folder} can't be written: {why}.",
            fix="Free disk space or mend the folder's permissions; unacknowledged events may be sent again.",
        )

    @classmethod
    def damaged(cls, file: str, offset: int) -> JournalError:
        return cls(
            f"The feedback log {file} is damaged at byte {offset}, before its end.",
            fix="Restore the file; what comes after the damage was acknowledged and must not be thrown away.",
        )


class EventConflictError(MillraceError):
    """An event id comes again with other content."""

    code = "MR-EVENT-CONFLICT"
    status: ClassVar[int] = 409

    @classmethod
    def different(cls, ids: Sequence[str]) -> EventConflictError:
        return cls(
            f"{len(ids)} event id(s) were used before for another event: {examples(list(ids))}.",
            fix="Give each event an id of its own; send an event again only as it was.",
        )


class DeploymentError(MillraceError):
    """A deployment verb can't be done: nothing is staged, nothing to go back to, or the shadow differs too much."""

    code = "MR-DEPLOYMENT"
    status: ClassVar[int] = 409

    @classmethod
    def nothing_staged(cls) -> DeploymentError:
        return cls("Nothing is staged.", fix="Stage a model first: `millrace deploy stage champion`.")

    @classmethod
    def nothing_before(cls) -> DeploymentError:
        return cls("There is no earlier model to go back to.", fix="Stage the version you want, then switch.")

    @classmethod
    def busy(cls) -> DeploymentError:
        return cls("Another deployment verb is under way.", fix="Wait for it; `millrace deploy status` shows it.")

    @classmethod
    def shadow(cls, why: str) -> DeploymentError:
        return cls(
            f"The staged model is not switched to: {why}.",
            fix="Look at `millrace deploy status`; switch with --force if the difference is wanted.",
        )


class ServiceUnreachableError(MillraceError):
    """A client or command could not reach the service, or the service refused."""

    code = "MR-SERVICE"

    @classmethod
    def no_answer(cls, url: str, why: str) -> ServiceUnreachableError:
        return cls(
            f"The service at {url} does not answer: {why}.",
            fix="Start it with `millrace serve`, or name another with MILLRACE_SERVING_URL.",
        )

    @classmethod
    def refused(cls, url: str, status: int, message: str, fix: str) -> ServiceUnreachableError:
        return cls(f"The service at {url} answers {status}: {message}", fix=fix)
