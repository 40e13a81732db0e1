"""Every error that Nestvec raises on purpose, as one tree.

    NestvecError
    ├── InputError                     the request is wrong; the caller can mend it
    │   ├── BodyFormatError            not JSON, not an object, or in an encoding that is not read here
    │   ├── EmptyInputError            no input, or an empty one
    │   ├── UnsupportedError           another kind of model is needed
    │   ├── InputTooLongError          one input has more tokens than the model takes
    │   ├── RequestTooLargeError       too many inputs or tokens in one request
    │   ├── BodyTooLargeError          more bytes than the server reads
    │   ├── BodyTimeoutError           the body takes longer to come in than a request may
    │   ├── UnknownModelError          no such model here
    │   ├── QuotaError                 the key's files take too much space
    │   └── NotFoundError              no such file or batch of this key
    ├── AccessError                    no key, or a wrong one
    │   └── ForbiddenError             a good key without the right, or a caller from elsewhere
    ├── CapacityError                  the request is fine; the server cannot take it now
    │   ├── QueueFullError             the queue is full
    │   ├── NotReadyError              loading or draining
    │   │   └── ModelUnavailableError  one of several models cannot be loaded
    │   ├── DeadlineError              the deadline passed before an answer was there
    │   ├── MemoryShortError           an input does not fit into memory just now
    │   └── RateLimitError             the key has used up what it may ask for
    ├── ModelError                     the model cannot be fetched, read, exported or trusted
    │   ├── SourceError                its files cannot be fetched
    │   ├── FormatError                its files are missing, corrupt or of an unknown kind
    │   ├── ArtefactError              the cache cannot be read or written
    │   ├── ProviderError              the execution provider asked for is not available
    │   ├── ModelMemoryError           it does not fit beside the models that are loaded
    │   ├── ProbeError                 the graph's vectors differ from the stored ones
    │   ├── UnsuitedError              it cannot be run in this way, though perhaps in another
    │   └── QualityError               a lower precision moves its vectors too far
    ├── StoreError                     files and batches cannot be stored
    ├── ConfigError                    settings are wrong; lists every problem
    └── InternalError                  the server's fault
        ├── BackendError               the runtime failed on this input
        │   ├── BackendMemoryError     the runtime had no memory for this batch
        │   └── BackendLostError       the device is gone; only a new process can go on
        ├── QuarantinedError           this input ended the engine's process before
        └── DegenerateVectorError      the model gave NaN, infinity or a zero vector

There are no HTTP numbers here: `api/error_handlers.py` has the one table that turns classes into statuses. A message
says what is wrong, the limit and the way out; it never holds the caller's text. The engine's process sends an error to
the HTTP processes by the name of its class, which `ipc/frames.py` looks up in this module.
"""

from collections.abc import Sequence
from typing import Final

# So many models are named to a caller whose model does not exist; /v1/models has all of them.
MAX_NAMED_MODELS: Final = 10


class NestvecError(Exception):
    """The base of all errors that are raised on purpose.

    Attributes:
        code: A stable, public word for the kind of error.
        message: What is told to the caller.
    """

    code: str = "internal_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InputError(NestvecError):
    """The request is wrong, and the caller can mend it.

    Attributes:
        param: The field at fault, or None.
        input_index: Position of the input at fault in the request, or None.
    """

    code = "invalid_value"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        input_index: int | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.param = param
        self.input_index = input_index


class BodyFormatError(InputError):
    """The body is not JSON, not an object, or in an encoding that is not read here."""

    code = "invalid_json"


class EmptyInputError(InputError):
    """The request has no input, or an empty one."""

    code = "invalid_value"


class UnsupportedError(InputError):
    """The model served is not of the kind that the request needs."""

    code = "unsupported"


class InputTooLongError(InputError):
    """An input has more tokens than the model takes, and truncation is off.

    Attributes:
        got_tokens: How many tokens the input has, special tokens included.
        limit_tokens: How many tokens the model takes.
        is_lower_bound: Whether only a leading part was counted.
    """

    code = "context_length_exceeded"

    def __init__(
        self, *, got_tokens: int, limit_tokens: int, input_index: int, is_lower_bound: bool = False
    ) -> None:
        # OpenAI's wording: litellm and other clients match it, and read both numbers by regular expressions.
        at_least = "at least " if is_lower_bound else ""
        super().__init__(
            f"This model's maximum context length is {limit_tokens} tokens, however you requested "
            f"{at_least}{got_tokens} tokens ({at_least}{got_tokens} in your prompt; 0 for the completion). "
            "Please reduce your prompt; or completion length.",
            param="input",
            input_index=input_index,
        )
        self.got_tokens = got_tokens
        self.limit_tokens = limit_tokens
        self.is_lower_bound = is_lower_bound


class RequestTooLargeError(InputError):
    """One request has too many inputs or tokens."""

    code = "request_too_large"


class BodyTooLargeError(InputError):
    """The body has more bytes than the server reads."""

    code = "body_too_large"


class BodyTimeoutError(InputError):
    """The body takes longer to come in than a request may."""

    code = "request_timeout"


class UnknownModelError(InputError):
    """No model of this name is served here.

    Attributes:
        name: The name as the caller wrote it, shortened; "" for none.
    """

    code = "model_not_found"

    def __init__(self, name: str, known: Sequence[str] = ()) -> None:
        """Say that there is no such model.

        Args:
            name: The name as the caller wrote it.
            known: Names of the models that the caller may use, as callers are to see them.
        """
        self.name = name[:200]
        message = f"The model `{self.name}` does not exist or you do not have access to it."
        if known:
            more = (
                ""
                if len(known) <= MAX_NAMED_MODELS
                else f" and {len(known) - MAX_NAMED_MODELS} more"
            )
            message += f" Here: {', '.join(known[:MAX_NAMED_MODELS])}{more}."
        super().__init__(message if name else "you must provide a model parameter", param="model")


class QuotaError(InputError):
    """The key's files take too much space."""

    code = "quota_exceeded"


class NotFoundError(InputError):
    """The key has no file or batch of this id."""

    code = "not_found"


class AccessError(NestvecError):
    """The request carries no API key, or a wrong one."""

    code = "invalid_api_key"


class ForbiddenError(AccessError):
    """Who calls is known or needs no key, and still may not do this."""

    code = "admin_right_missing"


class CapacityError(NestvecError):
    """The request is fine, but the server cannot take it now.

    Attributes:
        retry_after_s: How long to wait before a retry, in seconds.
    """

    code = "overloaded"

    def __init__(
        self, message: str, *, retry_after_s: float = 1.0, code: str | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class QueueFullError(CapacityError):
    """The queue is full, or the wait in it would be too long.

    Attributes:
        reason: "queue_full", "wait_too_long" or "deadline".
        own_s: How much time of all workers the refused inputs take; 0 where that is not known.
        waiting_s: How long what waits takes; 0 where that is not known.
    """

    code = "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float = 1.0,
        reason: str = "queue_full",
        own_s: float = 0.0,
        waiting_s: float = 0.0,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.reason = reason
        self.own_s = own_s
        self.waiting_s = waiting_s


class NotReadyError(CapacityError):
    """The server is loading or draining."""

    code = "service_unavailable"


class ModelUnavailableError(NotReadyError):
    """One of several models cannot be loaded now; the others go on serving."""

    code = "model_unavailable"


class DeadlineError(CapacityError):
    """The deadline passed before an answer was there."""

    code = "deadline_exceeded"


class MemoryShortError(CapacityError):
    """An input does not fit into memory just now, not even alone."""

    code = "out_of_memory"


class RateLimitError(CapacityError):
    """The key has used up what it may ask for in a period of time.

    Attributes:
        key_id: Id of the key.
        of: The limit that was reached: "requests" in a second, "tokens" in a minute, or the "quota" of a month, where
            a retry will not help soon.
    """

    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, retry_after_s: float = 1.0, key_id: str = "", of: str = "requests"
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.key_id, self.of = key_id, of
        if of == "quota":
            self.code = "insufficient_quota"


class ModelError(NestvecError):
    """The model cannot be fetched, read, exported or trusted."""

    code = "model_error"


class SourceError(ModelError):
    """The model's files cannot be fetched."""


class FormatError(ModelError):
    """The model's files are missing, corrupt or of an unknown kind."""


class ArtefactError(ModelError):
    """The cache cannot be read or written."""


class ProviderError(ModelError):
    """The execution provider asked for is not available."""


class ModelMemoryError(ModelError):
    """The model does not fit into memory beside the models that are loaded."""


class ProbeError(ModelError):
    """The graph's vectors differ from the stored ones."""


class UnsuitedError(ModelError):
    """The model cannot be run in this way, though perhaps in another."""


class QualityError(ModelError):
    """A lower precision moves the model's vectors too far."""


class StoreError(NestvecError):
    """The folder of files and batches cannot be opened, read or written."""

    code = "store_error"


class ConfigError(NestvecError):
    """Settings are wrong.

    Attributes:
        problems: One sentence for each problem, which names the setting.
    """

    code = "config_error"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class InternalError(NestvecError):
    """The server is at fault, not the caller.

    Attributes:
        input_index: Position of the input at fault in the request, or None.
        is_permanent: Whether the same request would fail again.
    """

    code = "internal_error"
    is_permanent = False

    def __init__(self, message: str, *, input_index: int | None = None) -> None:
        super().__init__(message)
        self.input_index = input_index


class BackendError(InternalError):
    """The runtime failed on this input."""

    code = "backend_error"


class BackendMemoryError(BackendError):
    """The runtime had no memory for this batch; a smaller one may run."""


class BackendLostError(BackendError):
    """The device is gone, or its state is beyond repair: only a new process can go on."""


class QuarantinedError(InternalError):
    """The input ended the engine's process each time that it ran alone; it is not run again for an hour."""

    code = "quarantined"
    is_permanent = True


class DegenerateVectorError(InternalError):
    """The model gave NaN, infinity or a zero vector."""

    code = "degenerate_vector"
    is_permanent = True
