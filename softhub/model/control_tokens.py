"""The control tokens of a tokenizer: those of a template are encoded, and those in texts are not.

A tokenizer encodes either every control token that it finds in a string or none. `StandIns` encodes
those of a template only, in one call for the whole string: what a tokenizer does at the beginning
of a string, and to the whitespace beside a control token, is then the same as in plain
transformers.
"""

from __future__ import annotations

import copy
import string
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from tokenizers import AddedToken

from softhub.errors import TaskError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class StandIns:
    """A tokenizer in which each control token has a second name, for those of a template.

    The names are added tokens that are not special, so that `split_special_tokens` leaves them
    whole and splits the control tokens. In all else they are like the tokens that they stand for.

    Args:
        tokenizer: A tokenizer, which is copied.
        control: Control tokens and their ids.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, control: Mapping[str, int]) -> None:
        self._tokenizer = copy.deepcopy(tokenizer)
        self._names = {index: f"<softhub:{index}>" for index in control.values()}
        self._control: dict[int | None, int] = {}
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is not None:  # others encode no added token beside split ones
            added = tokenizer.added_tokens_decoder
            names = self._names.items()
            backend.add_tokens([_alike(added.get(index), name, False) for index, name in names])
            self._control = {backend.token_to_id(name): index for index, name in names}

    def ids(self, pieces: Sequence[str | int]) -> list[int] | None:
        """Return the ids of a string of texts and control tokens.

        Args:
            pieces: Texts, in which nothing is a control token, and ids of control tokens.

        Returns:
            The ids; None if they do not have these control tokens, as with a tokenizer in Python,
            or if a text contains a second name.

        Raises:
            TaskError: A text contains half of a surrogate pair.
        """
        if not self._control:
            return None
        named = [self._names[piece] if isinstance(piece, int) else piece for piece in pieces]
        found = text_ids(self._tokenizer, "".join(named))
        control = [self._control[index] for index in found if index in self._control]
        if control != [piece for piece in pieces if isinstance(piece, int)]:
            return None
        return [self._control.get(index, index) for index in found]


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str, *, frame: bool = False) -> list[int]:
    """Return the ids of a text, in which nothing is a special token.

    Args:
        tokenizer: The tokenizer.
        text: The text.
        frame: Whether to add what the tokenizer puts around a text, such as BOS.

    Raises:
        TaskError: The text contains half of a surrogate pair, which is not a character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TaskError(
            f"A text contains {text[error.start]!r} (character {error.start + 1}), half of a "
            "surrogate pair: expected Unicode text. Read it again with the encoding of its "
            "source, or replace what is broken: text.encode(errors='replace').decode()."
        ) from None
    encoded = tokenizer(text, add_special_tokens=frame, split_special_tokens=True, verbose=False)
    return list(encoded["input_ids"])


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the ids of the tokens that are marked as special.

    `all_special_tokens` lists only tokens with a role; others, such as Llama 3's
    `<|start_header_id|>`, are only marked as special among the added tokens.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    marked = {token.content: index for index, token in added.items() if token.special}
    vocabulary = tokenizer.get_vocab()
    return {**marked, **{token: vocabulary[token] for token in tokenizer.all_special_tokens}}


def marks(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the ids of added tokens that are control tokens without being marked as special.

    Such as Qwen3's `<think>` and `<tool_call>`: those enclosed in punctuation. Other added tokens,
    such as runs of spaces or new words, are text.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {
        token.content: index
        for index, token in added.items()
        if len(token.content) > 2
        and all(map(_is_punctuation, (token.content[0], token.content[-1])))
    }


def never_split_at_marks(tokenizer: PreTrainedTokenizerBase, marks: Collection[str]) -> None:
    """Have a tokenizer treat tokens as special, so that `split_special_tokens` leaves them out."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # tokenizers in Python leave out all added tokens
        added = tokenizer.added_tokens_decoder.values()
        tokens = [_alike(token, token.content, True) for token in added if token.content in marks]
        backend.add_special_tokens(tokens)


def _alike(token: AddedToken | None, name: str, special: bool) -> AddedToken:
    """Return a token of another name that is found in a text as `token` is."""
    like = AddedToken(name, normalized=False) if token is None else token
    return AddedToken(
        name,
        single_word=like.single_word,
        lstrip=like.lstrip,
        rstrip=like.rstrip,
        normalized=like.normalized,
        special=special,
    )


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")
