"""What clients may send, in OpenAI's field names (vLLM's for tokens and scores), with the range of every number.

Types are strict (JSON says what it means), NaN and infinities are refused. Unknown fields and those that only describe
a request (`user`, `store`, `metadata`) are ignored; fields that would change the answer and are not supported are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_CHOICES = 1024  # answers of one HTTP request: prompts times n
MAX_PROMPTS = 1024
LONGEST_STOP = 256  # characters
MAX_TOKEN_ID = 2**31 - 1


def _whole_characters(text: str) -> str:
    if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("holds half a surrogate pair, which no text does")
    return text


TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
# fail_fast everywhere: a list of a million mistakes is refused at the first one.
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
StopString = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP), AfterValidator(_whole_characters)]
Stop = StopString | Annotated[list[StopString], Field(max_length=16, fail_fast=True)]
ModelName = Annotated[
    str | None, Field(max_length=256, description="An id of /v1/models; default: the first that fits.")
]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class StreamOptions(Strict):
    include_usage: bool | None = None


class Sampling(Strict):
    """What chats and completions have in common."""

    model: ModelName = None
    max_tokens: Annotated[int | None, Field(ge=1, le=2**31)] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float | None, Field(ge=0, le=1)] = 1.0
    n: Annotated[int | None, Field(ge=1, le=128)] = 1
    seed: Annotated[int | None, Field(ge=-(2**63), le=2**63 - 1)] = None
    stop: Stop | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2, description="Only 0 is supported.")] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2, description="Only 0 is supported.")] = None
    logit_bias: Annotated[dict[str, float] | None, Field(description="Only empty is supported.")] = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def unsupported(self) -> str | None:
        """A field that would change the answer, and that this server does not know how to obey."""
        asked = [name for name in ("presence_penalty", "frequency_penalty", "logit_bias") if getattr(self, name)]
        return asked[0] if asked else None


class TextPart(Strict):
    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)]

    def plain(self) -> dict[str, str]:
        """As our dialogues hold it; `developer` is OpenAI's newer word for `system`."""
        parts = [self.content] if isinstance(self.content, str) else [part.text for part in self.content]
        return {"role": "system" if self.role == "developer" else self.role, "content": "".join(parts)}


Messages = Annotated[list[ChatMessage], Field(min_length=1, max_length=4096, fail_fast=True)]


class ResponseFormat(Strict):
    type: str


class ChatRequest(Sampling):
    messages: Messages
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=2**31)] = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    response_format: Annotated[ResponseFormat | None, Field(description="Only text is supported.")] = None
    tools: Annotated[list[Any] | None, Field(description="Not supported.")] = None
    functions: Annotated[list[Any] | None, Field(description="Not supported.")] = None
    tool_choice: Annotated[Any, Field(description="Only none and auto, as there are no tools.")] = None
    continue_final_message: Annotated[bool | None, Field(description="Not supported.")] = None

    def unsupported(self) -> str | None:
        if self.response_format is not None and self.response_format.type != "text":
            return "response_format"
        if self.tool_choice not in (None, "none", "auto"):
            return "tool_choice"
        asked = [name for name in ("tools", "functions", "continue_final_message") if getattr(self, name)]
        return asked[0] if asked else super().unsupported()


class CompletionRequest(Sampling):
    prompt: Annotated[
        str
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)],
        Field(description="Text, token ids, or a list of either. Special tokens in a text are read as such."),
    ] = ""
    max_tokens: Annotated[int | None, Field(ge=0, le=2**31, description="0 with echo alone.")] = 16
    echo: bool | None = False
    logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    best_of: Annotated[int | None, Field(ge=1, le=128, description="Only n itself is supported.")] = None
    suffix: Annotated[str | None, Field(description="Only empty is supported.")] = None

    @property
    def prompts(self) -> list[str | list[int]]:
        prompt: Any = self.prompt
        return prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]

    def unsupported(self) -> str | None:
        if self.best_of is not None and self.best_of != (self.n or 1):
            return "best_of"
        return "suffix" if self.suffix else super().unsupported()


class TokenizeRequest(Strict):
    """`prompt` or `messages`, as vLLM's endpoint takes them."""

    model: ModelName = None
    prompt: Annotated[str | None, Field(max_length=2**20)] = None
    messages: Messages | None = None
    add_special_tokens: Annotated[bool, Field(description="BOS in front of a prompt, where the model wants one.")] = (
        True
    )
    add_generation_prompt: Annotated[bool, Field(description="Only true is supported, for messages.")] = True
    return_token_strs: bool | None = False


class DetokenizeRequest(Strict):
    model: ModelName = None
    tokens: Annotated[list[TokenId], Field(fail_fast=True)]


class ScoreRequest(Strict):
    """Dialogues that end with an answer: `messages` for one, `input` for several, or `text_1` (prompts) with `text_2` (answers)."""

    model: ModelName = None
    messages: Messages | None = None
    input: Annotated[list[Messages] | None, Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)] = None
    text_1: str | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)] | None = None
    text_2: str | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)] | None = None
