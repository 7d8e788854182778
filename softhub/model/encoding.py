"""Text to token ids: templates, truncation of the text column only, and label words in context.

User columns can never become control tokens: they are tokenised with `split_special_tokens`, and
only control tokens that stand literally in the template (a rendered chat, say) are kept as such.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from softhub.errors import TaskError
from softhub.tasks import Task, Template, Verbalizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAMPLE = "text"


@dataclass(frozen=True)
class EncodedText:
    """Token ids of one rendered row.

    Attributes:
        ids: Token ids, at least one.
        cut: Characters of the text column that were cut to make it fit.
    """

    ids: tuple[int, ...]
    cut: int = 0


@dataclass(frozen=True)
class Candidates:
    """The token sequences that may answer a row, and the label that each belongs to.

    Attributes:
        labels: Label names, in the verbalizer's order.
        sequences: Token ids of each word; no sequence is a prefix of another.
        owners: For each sequence, the index of its label; 2 i and 2 i + 1 where each label i is
            answered by yes or no.
        yes_no: Whether each label is a decision of its own (multi-label).
    """

    labels: tuple[str, ...]
    sequences: tuple[tuple[int, ...], ...]
    owners: tuple[int, ...]
    yes_no: bool = False

    @cached_property
    def continuations(self) -> tuple[tuple[int, ...], ...]:
        """Fewest rows of tokens that cover every proper prefix of every sequence.

        One row of no tokens if each sequence is a single token: then the position that ends the
        text says all.
        """
        prefixes = sorted({sequence[:-1] for sequence in self.sequences}, key=len, reverse=True)
        rows: list[tuple[int, ...]] = []
        for prefix in prefixes:
            if not any(row[: len(prefix)] == prefix for row in rows):
                rows.append(prefix)
        return tuple(rows)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """All tokens in order, which is where a prompt of init `labels` starts."""
        ids = tuple(token for sequence in self.sequences for token in sequence)
        return tuple(dict.fromkeys(ids)) if self.yes_no else ids  # yes and no stand in every label

    def row_of(self, sequence: tuple[int, ...]) -> int:
        """Index of the continuation that a sequence runs along."""
        prefix = sequence[:-1]
        return next(i for i, row in enumerate(self.continuations) if row[: len(prefix)] == prefix)


class Encoder:
    """Turns rows and label words into token ids for one base model's tokenizer.

    Args:
        tokenizer: The base model's tokenizer.
        is_encoder_decoder: Whether texts go to an encoder and answers to a decoder.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, is_encoder_decoder: bool) -> None:
        self.tokenizer = tokenizer
        self.is_encoder_decoder = is_encoder_decoder
        self._control = _control_tokens(tokenizer)
        longest_first = sorted(self._control, key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        plain = self._tokens(_SAMPLE, special=False)
        framed = self._tokens(_SAMPLE, special=True)
        start = next((i for i in range(len(framed)) if framed[i : i + len(plain)] == plain), 0)
        self._before = framed[:start]
        # A decoder's text goes on with the answer: only an encoder's input is closed.
        self._after = framed[start + len(plain) :] if is_encoder_decoder else []

    def encode(
        self,
        template: Template,
        row: Mapping[str, Any],
        *,
        text_column: str | None = None,
        room: int | None = None,
    ) -> EncodedText:
        """Render a row and tokenise it, cutting the end of the text column if need be.

        Args:
            template: The template.
            row: Values of its columns.
            text_column: The only column that may be cut.
            room: Most tokens that the result may have; None for no limit.

        Returns:
            The ids, and how many characters were cut.

        Raises:
            TaskError: The row does not fit even without its text.
        """
        ids = self._template_ids(template, row)
        if room is None or len(ids) <= room:
            return EncodedText(tuple(ids))
        text = str(row.get(text_column, "")) if text_column else ""
        kept, best = 0, None
        low, high = 0, len(text) - 1
        while low <= high:
            middle = (low + high) // 2
            trial = self._template_ids(template, {**row, str(text_column): text[:middle]})
            if len(trial) <= room:
                kept, best, low = middle, trial, middle + 1
            else:
                high = middle - 1
        if not best:
            raise TaskError(
                f"A row needs {len(ids)} tokens, and its template alone more than the {room} that "
                "there is room for: shorten the template, use fewer virtual tokens, or raise "
                "max_length."
            )
        return EncodedText(tuple(best), cut=len(text) - kept)

    def encode_plain(self, text: str, room: int | None = None) -> EncodedText:
        """Tokenise a text without a template, as the bare base would see it."""
        return self.encode(Template("{text}"), {"text": text}, text_column="text", room=room)

    def tokens_around(self, template: Template, row: Mapping[str, Any], text_column: str) -> int:
        """Tokens that a template adds to a row's text: what a request costs beside the text."""
        text = str(row[text_column])
        return len(self.encode(template, row).ids) - len(self.encode_plain(text).ids)

    def continuation(self, template: Template, word: str) -> tuple[int, ...]:
        """Token ids that a word adds behind a rendered template.

        Args:
            template: The template that the word follows.
            word: A label's word or a target text, with its leading space if it has one.

        Returns:
            The ids; for an encoder-decoder those of the word alone.

        Raises:
            TaskError: The word changes the tokens before it, or has none of its own.
        """
        if self.is_encoder_decoder:
            ids = self._tokens(word.strip(), special=False)
        else:
            tail = _literal_tail(template)
            before = self._text_ids(tail)
            joined = self._text_ids(tail + word)
            if joined[: len(before)] != before:
                raise TaskError(
                    f"The word {word!r} melts into the end of the template {tail[-20:]!r}: let the "
                    f"template end without a space and the word begin with one ({' ' + word!r})."
                )
            ids = joined[len(before) :]
        if not ids:
            raise TaskError(f"The word {word!r} has no tokens; expected a word.")
        return tuple(ids)

    def target(self, template: Template, text: str) -> tuple[int, ...]:
        """Token ids of a reference text behind its template, ended by the end-of-sequence token."""
        return (*self.continuation(template, text), self.end_id)

    @property
    def end_id(self) -> int:
        """The token that ends an answer."""
        end = self.tokenizer.eos_token_id
        if end is None:
            raise TaskError(
                "The tokenizer has no end-of-sequence token, which ends an answer: set one with "
                "tokenizer.eos_token."
            )
        return int(end)

    def said_of(self, task: Task, room: int) -> tuple[int, ...]:
        """What there is to say of a task: its description and the words of its labels.

        Args:
            task: The task.
            room: Most tokens that there is room for: the description is left out where it does not
                fit, and then the commas between the words; the last words where they do not.

        Returns:
            At most so many token ids; none of a task without a description or labels.
        """
        verbalizer = task.verbalizer.words if task.verbalizer else ()
        words = ", ".join(word.strip() for _, several in verbalizer for word in several)
        said = ": ".join(part for part in (task.description.rstrip(" ."), words) if part)
        for text in filter(None, (said, words)):
            ids = self._tokens(f"{text}.", special=False)
            if len(ids) <= room:
                return tuple(ids)
        candidates = self.candidates_of(task)
        return candidates.token_ids[:room] if candidates else ()

    def candidates_of(self, task: Task) -> Candidates | None:
        """What may answer a task's rows; None for generation. Raises as `candidates` does."""
        if task.verbalizer is None:
            return None
        yes_no = task.yes_no if task.multilabel else None
        return self.candidates(task.template, task.verbalizer, yes_no)

    def candidates(
        self, template: Template, verbalizer: Verbalizer, yes_no: Sequence[str] | None = None
    ) -> Candidates:
        """Tokenise a verbalizer's words in the context of a template.

        If a word's tokens begin another's, all words end in the end-of-sequence token: the scores
        of a word and of its extension are then comparable.

        Args:
            template: The template.
            verbalizer: Labels and their words.
            yes_no: Multi-label: what stands behind a label's word where it applies, and where not.

        Raises:
            TaskError: A word melts into the template, or words of two labels have equal tokens.
        """
        answered = [
            (owner * len(yes_no or ("",)) + side, word + answer)
            for owner, (_, words) in enumerate(verbalizer.words)
            for word in words
            for side, answer in enumerate(yes_no or ("",))
        ]
        sequences = [self.continuation(template, word) for _, word in answered]
        if len(set(sequences)) < len(sequences):
            raise TaskError(
                f"Two of the words {[word for _, word in answered]} have the same tokens: every "
                "word must differ from the others for this tokenizer."
            )
        if _some_is_prefix(sequences):
            sequences = [(*sequence, self.end_id) for sequence in sequences]
        owners = tuple(owner for owner, _ in answered)
        return Candidates(verbalizer.labels, tuple(sequences), owners, yes_no is not None)

    def _template_ids(self, template: Template, row: Mapping[str, Any]) -> list[int]:
        return self._framed(self._chunks(template.text), row)

    def _chunks(self, text: str) -> list[str]:
        """Split a template's literal text at its own control tokens."""
        chunks, position = [], 0
        for match in self._split.finditer(text):
            chunks += [text[position : match.start()], match.group()]
            position = match.end()
        return [chunk for chunk in (*chunks, text[position:]) if chunk]

    def _framed(self, chunks: Sequence[str], row: Mapping[str, Any]) -> list[int]:
        """Ids of a template's chunks; a template with control tokens brings its own frame."""
        ids: list[int] = []
        for chunk in chunks:
            if chunk in self._control:
                ids.append(self._control[chunk])
            else:
                ids += self._tokens(Template(chunk).render(row), special=False)
        framed = any(chunk in self._control for chunk in chunks)
        before = [] if framed else self._before
        # A sentinel is no frame: without its end an encoder's input is unlike any it has seen.
        after = [] if ids[-len(self._after) :] == self._after else self._after
        return [*before, *ids, *after] or [self.end_id]

    def _text_ids(self, text: str) -> list[int]:
        """Ids of literal text that may hold control tokens, without a frame."""
        ids: list[int] = []
        for chunk in self._chunks(text):
            if chunk in self._control:
                ids.append(self._control[chunk])
            else:
                ids += self._tokens(chunk, special=False)
        return ids

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        encoded = self.tokenizer(
            text, add_special_tokens=special, split_special_tokens=True, verbose=False
        )
        return list(encoded["input_ids"])


def render_chat(task: Task, tokenizer: PreTrainedTokenizerBase) -> Task:
    """Write a task's system text and template out as one literal template in chat format.

    The rendered text, control tokens and all, is what the manifest then holds, so that prediction
    does not depend on the chat template of some later version of the tokenizer.

    Args:
        task: A task; returned as it is if it has no system text.
        tokenizer: Tokenizer with a chat template.

    Returns:
        The task with its template rendered and no system text left to render.

    Raises:
        TaskError: The tokenizer has no chat template, it refuses a system text, or the task's words
            do not begin as it ends.
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
            f"The base's chat format refuses the task {task.name!r} ({error}): put the system text "
            "into the template, and write system: ''."
        ) from error
    _check_words(task, str(text))
    template = Template(str(text).rstrip(" \t"))  # a space at the end belongs to the words
    return replace(task, template=template, hard_templates=(), system=None)


def _check_words(task: Task, chat: str) -> None:
    """Raise if the words of a task do not begin as its rendered chat ends."""
    if task.verbalizer is None:
        return
    word, end = task.verbalizer.words[0][1][0], chat[len(chat.rstrip()) :]
    wanted = f" {word.strip()}" if end.endswith((" ", "\t")) else word.strip()
    if end and word != wanted:
        raise TaskError(
            f"The chat that the base's format makes of the task {task.name!r} ends in {end!r}: "
            f"write {wanted!r}, not {word!r}, in the verbalizer, and its other words alike."
        )


def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Ids of the tokens that text must not become.

    `all_special_tokens` lists only those that have a role; Llama 3's `<|start_header_id|>`, say,
    is marked as special among the added tokens alone.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    marked = {token.content: index for index, token in added.items() if token.special}
    vocabulary = tokenizer.get_vocab()
    return {**marked, **{token: vocabulary[token] for token in tokenizer.all_special_tokens}}


def _literal_tail(template: Template) -> str:
    """The template's end with a sample text before it: the context that answers stand in."""
    return template.render(dict.fromkeys(template.columns, _SAMPLE))


def _some_is_prefix(sequences: Sequence[tuple[int, ...]]) -> bool:
    ordered = sorted(sequences)
    return any(b[: len(a)] == a for a, b in pairwise(ordered))
