"""/tokenize, /detokenize and /tokenizer_info, in vLLM's shapes: lm-eval reads a remote tokenizer through them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool

from ayni.serve.errors import bad_request
from ayni.serve.models import Served
from ayni.serve.protocol import DetokenizeRequest, TokenizeRequest
from ayni.serve.responses import Detokenized, Tokenized, TokenizerInfo
from ayni.serve.serving import ERRORS, Serving, serving
from ayni.text.dialogue import encode_chat, encode_prompt

router = APIRouter(responses=ERRORS)


@router.post("/tokenize")
async def tokenize(body: TokenizeRequest, serving: Annotated[Serving, Depends(serving)]) -> Tokenized:
    """Ids of a text (special tokens in it count as such) or of a dialogue in the model's format."""
    model = serving.catalogue.any_model(body.model)
    if (body.prompt is None) == (body.messages is None):
        raise bad_request("send either prompt or messages", "prompt")
    ids = await run_in_threadpool(_encode, model, body)
    return Tokenized(
        tokens=ids,
        count=len(ids),
        max_model_len=model.max_len,
        token_strs=[model.vocabulary.text(token) for token in ids] if body.return_token_strs else None,
    )


def _encode(model: Served, body: TokenizeRequest) -> list[int]:
    if body.messages is None:
        assert body.prompt is not None
        return model.vocabulary.encode_prompt_text(body.prompt, body.add_special_tokens)
    messages = [message.plain() for message in body.messages]
    try:
        if messages[-1]["role"] == "assistant":
            return encode_chat(model.tokenizer, messages)[0]
        return encode_prompt(model.tokenizer, messages)
    except ValueError as error:
        raise bad_request(f"messages: {error}", "messages") from None


@router.post("/detokenize")
async def detokenize(body: DetokenizeRequest, serving: Annotated[Serving, Depends(serving)]) -> Detokenized:
    """The text of ids; special tokens have none."""
    model = serving.catalogue.any_model(body.model)
    return Detokenized(prompt=await run_in_threadpool(model.tokenizer.decode, body.tokens))


@router.get("/tokenizer_info")
async def tokenizer_info(serving: Annotated[Serving, Depends(serving)], model: str | None = None) -> TokenizerInfo:
    """What a client needs to render the chat template and to end a text as this model's tokenizer does."""
    served = serving.catalogue.any_model(model)
    tokenizer, names = served.tokenizer, served.vocabulary.names
    return TokenizerInfo(
        tokenizer_class=str(served.tokenizer_config.get("tokenizer_class", "PreTrainedTokenizerFast")),
        vocab_size=tokenizer.vocab_size,
        model_max_length=served.max_len,
        bos_token=names.get(tokenizer.bos_id),
        eos_token=names.get(tokenizer.eos_id),
        pad_token=None if tokenizer.pad_id is None else names.get(tokenizer.pad_id),
        chat_template=tokenizer.template,
        add_bos_token=served.vocabulary.adds_bos,
        special_tokens=tokenizer.specials,
    )
