"""Convert text to token ids: templates, truncation of the text column, and label words in context.

User columns can never become control tokens: only those that the template contains literally (e.g.
a rendered chat), or an answer to be scored, are encoded as such. All else is as in plain
transformers.
This holds whatever other threads do with the base's tokenizer, because an encoder has its own copy.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from softhub.errors import TaskError
from softhub.model.control_tokens import (
    StandIns,
    marks,
    never_split_at_marks,
    special_tokens,
    text_ids,
)
from softhub.tasks import Task, Template, Verbalizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAMPLE = "text"


@dataclass(frozen=True)
class EncodedText:
    """Token ids of one rendered row.

    Attributes:
        ids: Token ids, at least one.
        truncated: Number of characters removed from the end of the text column.
    """

    ids: tuple[int, ...]
    truncated: int = 0


@dataclass(frozen=True)
class Candidates:
    """The token sequences that may answer a row, and the label of each.

    Attributes:
        labels: Label names, in the verbalizer's order.
        sequences: Token ids of each word; no sequence is a prefix of another.
        owners: For each sequence, the index of its label; for multi-label tasks 2 i if it means
            yes for label i, and 2 i + 1 if it means no.
        yes_no: Whether each label is a separate decision (multi-label).
    """

    labels: tuple[str, ...]
    sequences: tuple[tuple[int, ...], ...]
    owners: tuple[int, ...]
    yes_no: bool = False

    @cached_property
    def continuations(self) -> tuple[tuple[int, ...], ...]:
        """Fewest rows of tokens that cover every proper prefix of every sequence.

        This is one empty row if each sequence is a single token, which the position at the end of
        the text predicts.
        """
        # Longest first, so that a prefix of a longer row needs no row of its own.
        prefixes = sorted({sequence[:-1] for sequence in self.sequences}, key=len, reverse=True)
        rows: list[tuple[int, ...]] = []
        for prefix in prefixes:
            if not any(row[: len(prefix)] == prefix for row in rows):
                rows.append(prefix)
        return tuple(rows)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """All tokens in order; initialization `labels` starts from their embeddings."""
        ids = tuple(token for sequence in self.sequences for token in sequence)
        return tuple(dict.fromkeys(ids)) if self.yes_no else ids  # each label repeats yes and no

    def row_of(self, sequence: tuple[int, ...]) -> int:
        """Return the index of the continuation that contains a sequence."""
        prefix = sequence[:-1]
        return next(i for i, row in enumerate(self.continuations) if row[: len(prefix)] == prefix)


class Encoder:
    """Turns rows and label words into token ids for one base model's tokenizer.

    Args:
        tokenizer: The base model's tokenizer. A copy of it is used, because each call with other
            options changes what a tokenizer does in all threads.
        is_encoder_decoder: Whether texts are an encoder's input and answers a decoder's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, is_encoder_decoder: bool) -> None:
        self.tokenizer = copy.deepcopy(tokenizer)
        self._candidates = lru_cache(maxsize=1024)(self._tokenized_words)  # many prompts, few tasks
        self.is_encoder_decoder = is_encoder_decoder
        special = special_tokens(self.tokenizer)
        self._special_ids = frozenset(special.values())
        self._control = special | marks(self.tokenizer)
        never_split_at_marks(self.tokenizer, self._control.keys() - special.keys())
        longest_first = sorted(self._control, key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        # What the tokenizer adds around a text, such as BOS before it.
        plain = self.tokens(_SAMPLE)
        framed = self.tokens(_SAMPLE, frame=True)
        start = next((i for i in range(len(framed)) if framed[i : i + len(plain)] == plain), 0)
        self._before = framed[:start]
        # A decoder continues its text with the answer: only an encoder's input has an end.
        self._after = framed[start + len(plain) :] if is_encoder_decoder else []

    def encode(
        self,
        template: Template,
        row: Mapping[str, Any],
        *,
        text_column: str | None = None,
        room: int | None = None,
    ) -> EncodedText:
        """Render a row and tokenize it; truncate the end of the text column if necessary.

        Args:
            template: The template.
            row: Values of its columns.
            text_column: The only column that may be truncated.
            room: Maximum number of tokens; None for no limit.

        Raises:
            TaskError: The row does not fit even without its text.
        """
        ids = self._template_ids(template, row)
        if room is None or len(ids) <= room:
            return EncodedText(tuple(ids))
        if room < 1:
            raise TaskError(
                "The virtual tokens and the answer leave no room for a text in the base model's "
                f"context, which is {1 - room} tokens too short: use fewer virtual tokens, or "
                "shorter reference texts."
            )
        fitting = self._truncated(template, row, text_column, room) if text_column else None
        if fitting is None:
            raise TaskError(self._does_not_fit(template, row, text_column, room))
        return fitting

    def _does_not_fit(
        self, template: Template, row: Mapping[str, Any], text_column: str | None, room: int
    ) -> str:
        """Return the message about a row that does not fit even without its text."""
        others = [repr(column) for column in template.columns if column != text_column]
        with_others = f"with its {' and '.join(others)}" if others else "alone"
        shorten = " or ".join([*(f"its {column}" for column in others), "the template"])
        least = self._template_ids(template, {**row, text_column: ""} if text_column else row)
        return (
            f"A row has {len(self._template_ids(template, row))} tokens, and its template "
            f"{with_others} has more than the {room} that fit ({len(least)}): shorten {shorten}, "
            "use fewer virtual tokens, or raise max_length."
        )

    def _truncated(
        self, template: Template, row: Mapping[str, Any], text_column: str, room: int
    ) -> EncodedText | None:
        """Return the row with the longest beginning of its text that fits; None if none does."""
        text = str(row.get(text_column, ""))
        best, low, high = list[int](), 0, len(text) - 1
        while low <= high:  # bisect
            middle = (low + high) // 2
            trial = self._template_ids(template, {**row, text_column: text[:middle]})
            if len(trial) <= room:
                best, low = trial, middle + 1
            else:
                high = middle - 1
        return EncodedText(tuple(best), truncated=len(text) - high) if best else None

    def encode_plain(self, text: str, room: int | None = None) -> EncodedText:
        """Tokenize a text without a template, as for the bare base."""
        return self.encode(Template("{text}"), {"text": text}, text_column="text", room=room)

    def tokens_around(self, template: Template, row: Mapping[str, Any], text_column: str) -> int:
        """Return the number of tokens that a template adds to a row's text."""
        text = str(row[text_column])
        return len(self.encode(template, row).ids) - len(self.encode_plain(text).ids)

    def continuation(self, template: Template, word: str) -> tuple[int, ...]:
        """Return the token ids that a word adds to a rendered template.

        The word has its leading space if it is written with one. For an encoder-decoder, the ids
        are those of the word alone.

        Raises:
            TaskError: The word changes the template's tokens, or has no tokens.
        """
        if self.is_encoder_decoder:
            ids = self.tokens(word.strip())
        else:
            tail = _literal_tail(template)
            before, joined = (self._ids(self._chunks(text)) for text in (tail, tail + word))
            # BPE may merge the word's first letters with the template's last ones.
            if joined[: len(before)] != before:
                raise TaskError(
                    f"The word {word!r} merges with the end of the template {tail[-20:]!r}: end "
                    f"the template without a space, and start the word with one ({' ' + word!r})."
                )
            ids = joined[len(before) :]
        if not ids:
            raise TaskError(f"The word {word!r} has no tokens; expected a word.")
        return tuple(ids)

    def target(self, template: Template, text: str) -> tuple[int, ...]:
        """Return the token ids of a reference text in context, with the end-of-sequence token."""
        return (*self.continuation(template, text), self.end_id)

    @property
    def end_id(self) -> int:
        """The end-of-sequence token, which ends an answer."""
        end = self.tokenizer.eos_token_id
        if end is None:
            raise TaskError(
                "The tokenizer has no end-of-sequence token, which must end an answer: set "
                "tokenizer.eos_token."
            )
        return int(end)

    def describe(self, task: Task, room: int) -> tuple[int, ...]:
        """Tokenize a task's description and the words of its labels.

        Args:
            task: The task.
            room: Maximum number of tokens. If they do not fit, the description is left out, then
                the commas between the words, then the last words.

        Returns:
            Token ids; none for a task without a description or labels.
        """
        verbalizer = task.verbalizer.words if task.verbalizer else ()
        words = ", ".join(word.strip() for _, synonyms in verbalizer for word in synonyms)
        full = ": ".join(part for part in (task.description.rstrip(" ."), words) if part)
        for text in filter(None, (full, words)):
            ids = self.tokens(f"{text}.")
            if len(ids) <= room:
                return tuple(ids)
        # Nothing fits as a text: take as many tokens of the label words as there is room for.
        candidates = self.candidates_of(task)
        return candidates.token_ids[:room] if candidates else ()

    def candidates_of(self, task: Task) -> Candidates | None:
        """Return the candidates of a task's rows as `candidates` does; None for generation."""
        if task.verbalizer is None:
            return None
        yes_no = task.yes_no if task.multilabel else None
        return self.candidates(task.template, task.verbalizer, yes_no)

    def candidates(
        self, template: Template, verbalizer: Verbalizer, yes_no: Sequence[str] | None = None
    ) -> Candidates:
        """Tokenize a verbalizer's words in the context of a template.

        If a word's tokens are a prefix of another's, all words get the end-of-sequence token, so
        that the scores of a word and its extension are comparable.

        Args:
            template: The template.
            verbalizer: Labels and their words.
            yes_no: For multi-label tasks, what follows a label's word if it applies, and if not.

        Raises:
            TaskError: A word merges with the template, or two words have the same tokens.
        """
        return self._candidates(template, verbalizer, None if yes_no is None else tuple(yes_no))

    def _tokenized_words(
        self, template: Template, verbalizer: Verbalizer, yes_no: tuple[str, ...] | None
    ) -> Candidates:
        # Each word, for multi-label tasks once with yes and once with no, and its label's index.
        answered = [
            (owner * len(yes_no or ("",)) + side, word + answer)
            for owner, (_, words) in enumerate(verbalizer.words)
            for word in words
            for side, answer in enumerate(yes_no or ("",))
        ]
        sequences = [self.continuation(template, word) for _, word in answered]
        if len(set(sequences)) < len(sequences):
            raise TaskError(
                f"Two of the words {[word for _, word in answered]} have the same tokens with this "
                "tokenizer: choose words that differ."
            )
        if _some_is_prefix(sequences):
            sequences = [(*sequence, self.end_id) for sequence in sequences]
        owners = tuple(owner for owner, _ in answered)
        return Candidates(verbalizer.labels, tuple(sequences), owners, yes_no is not None)

    def _chunks(self, text: str) -> list[str]:
        """Split a template's literal text at its own control tokens."""
        chunks, position = [], 0
        for match in self._split.finditer(text):
            chunks += [text[position : match.start()], match.group()]
            position = match.end()
        return [chunk for chunk in (*chunks, text[position:]) if chunk]

    def _template_ids(self, template: Template, row: Mapping[str, Any]) -> list[int]:
        """Return the ids of a rendered template, in the tokenizer's frame unless it has its own."""
        # Split before rendering, so that no column's text becomes a control token.
        chunks = self._chunks(template.text)
        ids = self._ids(chunks, lambda chunk: Template(chunk).render(row))
        framed = any(self._control.get(chunk) in self._special_ids for chunk in chunks)
        before = [] if framed else self._before
        # T5's sentinels are control tokens but no frame: an encoder's input always gets its end.
        after = [] if ids[-len(self._after) :] == self._after else self._after
        return [*before, *ids, *after] or [self.end_id]

    def _ids(self, chunks: Sequence[str], render: Callable[[str], str] = str) -> list[int]:
        """Return the ids of control tokens and of the rendered chunks between them."""
        pieces = [
            self._control[chunk] if chunk in self._control else render(chunk) for chunk in chunks
        ]
        if any(isinstance(piece, int) for piece in pieces):
            ids = self._stand_ins.ids(pieces)
            if ids is not None:
                return ids
        parts = ([piece] if isinstance(piece, int) else self.tokens(piece) for piece in pieces)
        return [index for part in parts for index in part]

    @cached_property
    def _stand_ins(self) -> StandIns:
        """What encodes templates with control tokens; made for the first of them."""
        return StandIns(self.tokenizer, self._control)

    def tokens(self, text: str, *, frame: bool = False) -> list[int]:
        """Return the ids of a text, in which nothing is a control token.

        Args:
            text: The text.
            frame: Whether to add what the tokenizer puts around a text, such as BOS.

        Raises:
            TaskError: The text contains half of a surrogate pair, which is not a character.
        """
        return text_ids(self.tokenizer, text, frame=frame)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each row of ids, literally and without special tokens."""
        shown = [[index for index in row if index not in self._special_ids] for row in rows]
        # Cleaning up would change the spaces of code.
        return self.tokenizer.batch_decode(shown, clean_up_tokenization_spaces=False)

    def shown(self, tokens: Sequence[int], *, first: bool) -> list[str]:
        """Return the text of each of several tokens by itself, as it is in a text.

        Many decoders strip the space before the first token of a text, so that the others have to
        be decoded after something.

        Args:
            tokens: Token ids, also of special tokens.
            first: Whether they are the first of a text.
        """
        before = [] if first else self._sample_ids
        rows = [before, *([*before, token] for token in tokens)]
        sample, *texts = self.tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False)
        return [text[len(sample) :] for text in texts]

    @cached_property
    def _sample_ids(self) -> list[int]:
        return self.tokens(_SAMPLE)


def render_chat(task: Task, tokenizer: PreTrainedTokenizerBase) -> Task:
    """Render a task's system text and template into one literal template in chat format.

    The manifest then contains the rendered text with its control tokens, so that prediction does
    not depend on the chat template of a later version of the tokenizer.

    Args:
        task: A task; returned as it is if it has no system text.
        tokenizer: Tokenizer with a chat template.

    Returns:
        The task with its template rendered and without a system text.

    Raises:
        TaskError: The tokenizer has no chat template, the template rejects a system text, or the
            task's words do not fit the end of the chat.
    """
    if task.system is None:
        return task
    if not tokenizer.chat_template:
        raise TaskError(
            f"The task {task.name!r} has a system text, but the base model's tokenizer has no chat "
            "template: remove `system`, or use an instruction-tuned base."
        )
    messages = [
        *([{"role": "system", "content": task.system}] if task.system else []),
        {"role": "user", "content": task.template.text},
    ]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise TaskError(
            f"The base's chat template rejects the task {task.name!r} ({error}): move the system "
            "text into the template, and set system: ''."
        ) from error
    _check_words(task, str(text))
    template = Template(str(text).rstrip(" \t"))  # a trailing space belongs to the words
    return replace(task, template=template, hard_templates=(), system=None)


def _check_words(task: Task, chat: str) -> None:
    """Check that a task's words fit the end of its rendered chat."""
    if task.verbalizer is None:
        return
    word, end = task.verbalizer.words[0][1][0], chat[len(chat.rstrip()) :]
    wanted = f" {word.strip()}" if end.endswith((" ", "\t")) else word.strip()
    if end and word != wanted:
        raise TaskError(
            f"The task {task.name!r} rendered in the base's chat format ends in {end!r}: write "
            f"{wanted!r}, not {word!r}, in the verbalizer, and change its other words likewise."
        )


def _literal_tail(template: Template) -> str:
    """Render the template with a sample text: the context of answers."""
    return template.render(dict.fromkeys(template.columns, _SAMPLE))


def _some_is_prefix(sequences: Sequence[tuple[int, ...]]) -> bool:
    ordered = sorted(sequences)
    return any(b[: len(a)] == a for a, b in pairwise(ordered))
