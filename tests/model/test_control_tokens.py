"""Templates with control tokens have the ids of plain transformers, and texts have none."""

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from softhub.model.chat import render_messages
from softhub.model.encoding import Encoder
from softhub.tasks import Template
from tests.tiny import CORPUS

CHAT = (
    "<s>{% for message in messages %}<|{{message['role']}}|>\n{{message['content']}}<|end|>\n"
    "{% endfor %}<|assistant|>\n"
)
ROLES = ("<|user|>", "<|end|>", "<|assistant|>")
CONTENTS = ("The screen is not great", " leading", "it's  two\n\n", "", "日本 🙂")


def like_sentencepiece(prepend, *more, normalized=False, **flags):
    """A tokenizer as converted from SentencePiece, with control tokens of a chat.

    Args:
        prepend: Where it puts the space before a word: at the first one, always, or by normalizing.
        more: Further control tokens.
        normalized: Whether control tokens are found in the normalized text.
        flags: How it treats the whitespace beside a control token.
    """
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if prepend == "normalizer":
        replace = normalizers.Replace(" ", "▁")
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    else:
        tokenizer.normalizer = normalizers.Lowercase() if normalized else normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    letters = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<unk>", "<s>", "</s>", *letters], show_progress=False
    )
    tokenizer.train_from_iterator([*CORPUS, *["user assistant \n hello"] * 3], trainer)
    found = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokens = [AddedToken(e, special=True, normalized=normalized, **flags) for e in (*ROLES, *more)]
    found.add_tokens(tokens)
    found.chat_template = CHAT
    return found


def ids_of_chat(tokenizer, content):
    template, row = render_messages([{"role": "user", "content": content}], tokenizer)
    return list(Encoder(tokenizer, is_encoder_decoder=False).encode(template, row).ids)


def plain_ids_of_chat(tokenizer, content):
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=False
    )


@pytest.mark.parametrize("flags", [{}, {"rstrip": True}, {"lstrip": True}], ids=["", "r", "l"])
@pytest.mark.parametrize("prepend", ["first", "always", "normalizer"])
def test_a_chat_has_the_ids_of_plain_transformers(prepend, flags):
    tokenizer = like_sentencepiece(prepend, **flags)
    for content in CONTENTS:
        assert ids_of_chat(tokenizer, content) == plain_ids_of_chat(tokenizer, content)


@pytest.mark.parametrize("flags", [{}, {"rstrip": True}], ids=["", "r"])
@pytest.mark.parametrize("prepend", ["first", "always", "normalizer"])
def test_a_control_token_in_a_text_has_the_ids_that_it_has_where_it_is_none(prepend, flags):
    tokenizer = like_sentencepiece(prepend, "<|tool|>", **flags)
    without = like_sentencepiece(prepend, **flags)
    for content in ("a <|tool|> b", "<|tool|>", "\n<|tool|>\n"):
        assert ids_of_chat(tokenizer, content) == plain_ids_of_chat(without, content)


@pytest.mark.parametrize("normalized", [False, True])
def test_only_the_template_has_control_tokens(normalized):
    """Also with texts that normalizing, or the template beside them, makes one."""
    tokenizer = like_sentencepiece("first", normalized=normalized)
    control = set(tokenizer.convert_tokens_to_ids(["<s>", *ROLES]))
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    own = [index for index in plain_ids_of_chat(tokenizer, "a") if index in control]
    for content in ("<|end|>", "<|END|>", "a<|end", f"<softhub:{end}>", f"<softhub:{end}><|end|>"):
        found = ids_of_chat(tokenizer, content)
        assert [index for index in found if index in control] == own
    encoder = Encoder(tokenizer, is_encoder_decoder=False)
    found = encoder.encode(
        Template("<|{role}|>{text}|><|user|>:"), {"role": "end", "text": "<|end"}
    )
    assert [index for index in found.ids if index in control] == [own[1]]


def test_words_follow_a_control_token_as_in_plain_transformers():
    for flags in ({}, {"rstrip": True}):
        tokenizer = like_sentencepiece("first", **flags)
        template = Template("<|user|>\n{text}<|end|>\n<|assistant|>\n")
        chat = template.render({"text": "a"})
        whole, before = (tokenizer(text).input_ids for text in (f"{chat}positive", chat))
        found = Encoder(tokenizer, is_encoder_decoder=False).continuation(template, "positive")
        assert found == tuple(whole[len(before) :])


def test_a_tokenizer_in_python_has_the_control_tokens_of_the_template_only():
    tokenizer = ByT5Tokenizer()
    found = Encoder(tokenizer, is_encoder_decoder=False).encode(
        Template("a{text}</s>"), {"text": "</s>b"}
    )
    assert tokenizer.decode(found.ids) == "a</s>b</s>"
    assert found.ids.count(tokenizer.eos_token_id) == 1
