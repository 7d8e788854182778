"""Render a conversation with the base's chat template, so that no message becomes control tokens.

The template is rendered around placeholders, and the messages are filled in as columns of a row
are: what a user writes is tokenized as text, even if it looks like the end of a turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from softhub.errors import TaskError
from softhub.tasks import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render_messages(
    messages: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> tuple[Template, dict[str, str]]:
    """Render a conversation up to where the assistant's answer begins.

    Args:
        messages: Each with `role` and `content`, both strings.
        tokenizer: Tokenizer with a chat template.

    Returns:
        A literal template, and the row with the messages' contents for its columns.

    Raises:
        TaskError: A message lacks a role or a text, the tokenizer has no chat template, or the
            template rejects, rewrites or leaves out a message.
    """
    _check(messages)
    if not tokenizer.chat_template:
        raise TaskError(
            "Found a conversation, but the base model's tokenizer has no chat template; expected a "
            "text. Use an instruction-tuned base, or write the conversation as one text."
        )
    expected = _rendered(messages, tokenizer)
    holes = [{**each, "content": f"{{message {i}}}"} for i, each in enumerate(messages)]
    template = Template(_rendered(holes, tokenizer))
    literal = {column: f"{{{column}}}" for column in template.columns}  # braces of its own
    for change in (str, str.strip):  # many templates strip the messages
        contents = {f"message {i}": change(each["content"]) for i, each in enumerate(messages)}
        row = {**literal, **contents}
        if template.render(row) == expected:
            _check_complete(template, messages)
            return template, row
    raise TaskError(
        "The base's chat template rewrites these messages; expected one that copies them. Send "
        "fewer turns, or write the conversation as one text."
    )


def _check(messages: Sequence[Mapping[str, Any]]) -> None:
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise TaskError(f"Message {index} is {message!r:.80}; expected its role and content.")
        texts = [message.get(name) for name in ("role", "content")]
        if not all(isinstance(text, str) for text in texts):
            raise TaskError(
                f"Message {index} has the role {texts[0]!r:.40} and the content {texts[1]!r:.40}; "
                "expected two strings."
            )
    if not messages:
        raise TaskError("The conversation has no messages; expected at least one.")


def _check_complete(template: Template, messages: Sequence[Mapping[str, Any]]) -> None:
    """Refuse messages that a chat template leaves out, as many do with roles they do not know."""
    shown = set(template.columns)
    for index, message in enumerate(messages):
        if f"message {index}" not in shown:
            raise TaskError(
                f"The base's chat template leaves out message {index}, whose role is "
                f"{message['role']!r:.40}; expected one that contains all messages. Send it with "
                "another role such as 'system', or as part of the next message."
            )


def _rendered(messages: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> str:
    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        raise TaskError(f"The base's chat template rejects the messages: {error}") from error
    return str(text)
