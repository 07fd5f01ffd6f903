"""Chat templates: the Jinja programs that Hugging Face checkpoints bring, rendered as transformers renders them.

A template is a stranger's code: it runs in Jinja's immutable sandbox, which hides Python's internals and bounds loops.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

# Without the default system message that some templates add: what is trained is what the user wrote.
CHATML_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)

# One exchange per BOS and EOS, contents stripped, markers as single ids: our own compact Llama 2 format.
LLAMA2_TEMPLATE = (
    "{%- set system = messages[0]['content'] | trim if messages[0]['role'] == 'system' else '' -%}"
    "{%- for message in messages if message['role'] != 'system' -%}"
    "{%- if message['role'] == 'user' -%}"
    "{{- bos_token + '[INST]' -}}"
    "{%- if loop.first and system -%}{{- '<<SYS>>' + system + '<</SYS>>' -}}{%- endif -%}"
    "{{- message['content'] | trim + '[/INST]' -}}"
    "{%- else -%}"
    "{{- message['content'] | trim + eos_token -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
)

# Meta's chat_completion, for tokenizers that have no ids for the markers.
META_TEMPLATE = (
    "{%- set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' if messages[0]['role'] == 'system' else '' -%}"
    "{%- for message in messages if message['role'] != 'system' -%}"
    "{%- if message['role'] == 'user' -%}"
    "{{- bos_token + '[INST] ' + ((system if loop.first else '') + message['content']) | trim + ' [/INST]' -}}"
    "{%- else -%}"
    "{{- ' ' + message['content'] | trim + ' ' + eos_token -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
)


def render(template: str, messages: list[dict[str, str]], specials: dict[str, str], add_generation_prompt: bool) -> str:
    """The dialogue as text. `specials`: bos_token, eos_token, ... as the tokenizer names them.

    ValueError with the template's own words where it calls raise_exception, and for whatever else it gets wrong.
    """
    from jinja2 import TemplateError

    try:
        return _compiled(template).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=add_generation_prompt, **specials
        )
    except TemplateError as error:
        raise ValueError(f"the chat template refuses this dialogue: {error}") from None
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"the chat template fails: {error}") from None


@lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    from jinja2 import TemplateSyntaxError

    try:
        return _environment().from_string(template)
    except (TemplateSyntaxError, RecursionError) as error:
        raise ValueError(f"the chat template is not valid Jinja: {error}") from None


@lru_cache(maxsize=1)
def _environment() -> Any:
    """transformers' settings, filters and functions for chat templates."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks the assistant's words for transformers' loss masks; ours come from the roles."""

        tags = {"generation"}  # noqa: RUF012  (as the base class declares it)

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **how: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **how)

    now: Callable[[str], str] = lambda form: datetime.now().strftime(form)  # noqa: E731
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": now}
    return environment
