"""Conversations in the base's chat template: no message is left out silently."""

import pytest

from softhub.errors import TaskError
from softhub.model.chat import render_messages
from tests.tiny import build_tokenizer

ZEPHYR = (
    "{% for message in messages %}{% if message['role'] == 'user' %}<|user|>\n"
    "{{ message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}<|system|>\n"
    "{{ message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}<|assistant|>\n"
    "{{ message['content'] + eos_token }}\n{% endif %}{% endfor %}<|assistant|>\n"
)
HELLO = {"role": "user", "content": "Hello"}


@pytest.mark.parametrize(("role", "known"), [("system", True), ("developer", False)])
def test_a_message_that_the_template_leaves_out_is_refused(role, known):
    tokenizer = build_tokenizer()
    messages = [HELLO, {"role": role, "content": "Answer in French."}, HELLO]
    for template, copies in [(tokenizer.chat_template, True), (ZEPHYR, known)]:
        tokenizer.chat_template = template
        if copies:
            text, row = render_messages(messages, tokenizer)
            assert text.render(row) == tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        else:
            message = "leaves out message 1, whose role is 'developer'.*role such as 'system'"
            with pytest.raises(TaskError, match=message):
                render_messages(messages, tokenizer)
