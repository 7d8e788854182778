r"""A model class for lm-evaluation-harness, which scores prompts in mixed batches.

The harness finds models by name once their module is imported, and its command line imports its
own only. So its command line is started from here, with all of its options:

    python -m softhub.evaluation.lm_eval --model softhub --tasks sst2 --batch_size 32 \
        --model_args base=HuggingFaceTB/SmolLM2-135M-Instruct,prompt=runs/sentiment/adapter

In Python, `import softhub.evaluation.lm_eval` makes the name `softhub` known.

A text is what the harness' task makes of it, tokenized as by the harness' own `hf` model; neither
template nor options of the prompt's task are used. Nothing else in softhub imports this module, or
the harness.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from softhub.errors import ConfigError, SoftHubError, SoftHubWarning, TaskError
from softhub.inference.batching import answer_in_batches
from softhub.inference.engine import PromptModel
from softhub.inference.generation import generate_batch
from softhub.inference.options import resolve_options
from softhub.inference.requests import Request, with_seeds
from softhub.inference.scored_batches import logit_batch, score_batch
from softhub.model.encoding import EncodedText
from softhub.model.loading import load_base

_NEW_TOKENS = 256
"""Of a task that says nothing about it, as with the harness' own models."""
_WINDOW = 2048
"""Tokens of a window of a long text, on a base without a limit."""

Tokens = tuple[int, ...]


@register_model("softhub")
class SoftPromptLM(LM):  # type: ignore[misc]  # the harness is not installed where types are checked
    """A base model with prompts, as the harness calls it.

    Args:
        base: The base model: Hub id, folder or GGUF file.
        prompt: Adapter folder for all tasks; or one for each task by its name, where None is the
            bare base. Without it, all tasks run on the bare base.
        batch_size: Rows per batch; does not change the result.
        max_batch_size: Not supported.
        device: A device of torch. The harness passes `cuda:0` unless it is told otherwise, which is
            replaced by the CPU where there is no such device.
        force: Use prompts that were made for another base of the same width.
        **options: Options of `load_base`.

    Raises:
        ConfigError: An argument is not valid.
        IncompatiblePrompt: A prompt was made for another base.
    """

    def __init__(
        self,
        base: str,
        prompt: str | Mapping[str, str | None] | None = None,
        *,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        force: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if max_batch_size is not None or not str(batch_size).isdecimal():
            raise ConfigError(
                f"batch_size is {batch_size!r}; expected a number of rows, without max_batch_size: "
                "softhub does not search for it."
            )
        if str(device).startswith("cuda") and not torch.cuda.is_available():
            device = "cpu"
        self._model = PromptModel(load_base(base, **{"device_map": device, **options}))
        self._tokenizer = self._model.base.tokenizer
        self._batch_size = int(batch_size)
        self._prompt = prompt
        self._dropped: list[int] = []  # tokens of each text that was too long, until it is said
        folders = prompt.values() if isinstance(prompt, Mapping) else [prompt]
        for folder in {*folders} - {None}:
            self._model.load_prompt(folder, name=folder, force=force)

    # --- what the harness calls ---

    def loglikelihood(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation, and whether greedy decoding gives it."""
        # Continuations that differ in their last token only, such as letters, share a row.
        rows: dict[tuple[str | None, Tokens, Tokens], Request] = {}
        last_tokens: dict[Request, set[int]] = {}
        wanted = []
        for each in requests:
            name, (context, target) = self._prompt_of(each), self._pair(*each.args)
            key = (name, context, target[:-1])
            if key not in rows:
                rows[key] = self._row(name, context, target)
            last_tokens.setdefault(rows[key], set()).add(target[-1])
            wanted.append((rows[key], target[-1]))

        def answer(batch: list[Request]) -> list[dict[int, tuple[float, bool]]]:
            logits = logit_batch(self._model.base, batch)
            pairs = zip(batch, logits, strict=True)
            return [_scores(row.target[:-1], last_tokens[row], found) for row, found in pairs]

        found = self._answered([*last_tokens], answer, disable_tqdm)
        return [found[row][last] for row, last in wanted]

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Return the log-probability of each text; long ones are scored window by window."""
        windows: list[list[Request]] = []
        for each in requests:
            name, (text,) = self._prompt_of(each), each.args
            ids, size = list(self._ids(text)), self._room(name, answer=1) or _WINDOW
            pairs = get_rolling_token_windows(ids, self._start, size, context_len=1)
            disjoint = map(make_disjoint_window, pairs)
            windows.append([self._row(name, tuple(a), tuple(b)) for a, b in disjoint])
        rows = [row for text in windows for row in text]
        found = self._answered(rows, partial(score_batch, self._model.base), disable_tqdm)
        return [sum(sum(found[row]) for row in text) for text in windows]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continue texts, each with the options of its task."""
        rows = []
        for each in requests:
            name, (text, arguments) = self._prompt_of(each), each.args
            options = resolve_options(self._model.base, _generation_options(arguments), {})
            encoded = self._cut(self._ids(text), self._room(name, options["max_new_tokens"]))
            chosen = tuple(sorted(options.items()))
            rows.append(Request(encoded, self._model.find(name), options=chosen))
        rows = with_seeds(rows, None)  # from torch's generator, which the harness seeds
        found = self._answered(rows, partial(generate_batch, self._model.base), disable_tqdm)
        return [found[row] for row in rows]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation in the base's chat template; the prompt comes before it."""
        return str(
            self._tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the base's chat template, for the record of results."""
        return self._tokenizer.get_chat_template() if chat_template else None

    @property
    def tokenizer_name(self) -> str:
        """A name for files of tokenized requests."""
        return str(self._tokenizer.name_or_path).replace("/", "__")

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Accept the harness' cache of answers, which knows a request by its text.

        Raises:
            ConfigError: Tasks have prompts of their own, so that equal texts have two answers.
        """
        if isinstance(self._prompt, Mapping):
            raise ConfigError(
                "--use_cache tells requests apart by their texts only, and here tasks have prompts "
                "of their own: leave it out, or evaluate one prompt at a time."
            )
        super().set_cache_hook(cache_hook)

    # --- rows ---

    def _prompt_of(self, request: Instance) -> str | None:
        if not isinstance(self._prompt, Mapping):
            return self._prompt
        if request.task_name not in self._prompt:
            raise ConfigError(
                f"No prompt is given for the task {request.task_name!r} (for: "
                f"{', '.join(self._prompt)}); name its adapter folder, or None for the bare base."
            )
        return self._prompt[request.task_name]

    @property
    def _start(self) -> int:
        """The token before a text that has no context."""
        bos = self._tokenizer.bos_token_id
        return int(self._model.encoder.end_id if bos is None else bos)

    def _ids(self, text: str, *, frame: bool = True) -> Tokens:
        """Tokenize a text, in which rendered control tokens count as such."""
        begun = text.startswith(str(self._tokenizer.decode(self._start)))
        encoded = self._tokenizer.encode(text, add_special_tokens=frame and not begun)
        return tuple(encoded)

    def _pair(self, context: str, continuation: str) -> tuple[Tokens, Tokens]:
        """Tokenize a context and what continues it."""
        # Spaces between the two belong to the first word of the continuation.
        stripped = context.rstrip()
        context, continuation = stripped, context[len(stripped) :] + continuation
        if not context:
            ids = self._ids(continuation, frame=False)
            begun = ids[:1] == (self._start,)
            before, target = (ids[:1], ids[1:]) if begun else ((self._start,), ids)
        elif self._model.base.is_encoder_decoder:
            before, target = self._ids(context), self._ids(continuation, frame=False)
        else:
            before = self._ids(context)
            target = self._ids(context + continuation)[len(before) :]
        if not target:
            raise TaskError(f"The continuation {continuation!r:.80} has no tokens of its own.")
        return before, target

    def _row(self, name: str | None, context: Tokens, target: Tokens) -> Request:
        encoded = self._cut(context, self._room(name, len(target)))
        return Request(encoded, self._model.find(name), target=target)

    def _room(self, name: str | None, answer: int) -> int | None:
        prompt = self._model.find(name)
        return self._model.base.room_for_text(prompt.length if prompt else 0, answer)

    def _cut(self, ids: Tokens, room: int | None) -> EncodedText:
        """Drop the beginning of a text that is too long, as the harness' own models do."""
        if room is not None and len(ids) > room:
            self._dropped.append(len(ids) - room)
            ids = ids[-room:]
        return EncodedText(ids)

    def _answered(self, rows: list[Request], answer: Any, quiet: bool) -> dict[Request, Any]:
        """Answer rows in batches, whatever their prompts."""
        if self._dropped:
            warnings.warn(
                f"{len(self._dropped)} texts were too long beside their prompts and answers; "
                f"{sum(self._dropped)} tokens at their beginnings were dropped.",
                SoftHubWarning,
                stacklevel=3,
            )
            self._dropped.clear()
        said = None if quiet else "lm-evaluation-harness"
        found = answer_in_batches(rows, self._batch_size, answer, progress=said)
        return dict(zip(rows, found, strict=True))


def _scores(
    before: Tokens, last_tokens: set[int], logits: torch.Tensor
) -> dict[int, tuple[float, bool]]:
    """Score continuations of a row that differ in their last token.

    Args:
        before: Their common tokens.
        last_tokens: The last token of each.
        logits: `[len(before) + 1, V]`.
    """
    logprobs, best = logits.log_softmax(dim=-1), logits.argmax(dim=-1).tolist()
    common = sum(float(logprobs[place, token]) for place, token in enumerate(before))
    greedy = best[:-1] == list(before)
    return {
        last: (common + float(logprobs[-1, last]), greedy and best[-1] == last)
        for last in last_tokens
    }


def _generation_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a task of the harness under their names in transformers."""
    options: dict[str, Any] = dict(normalize_gen_kwargs(dict(arguments), _NEW_TOKENS))
    options["max_new_tokens"] = options.pop("max_gen_toks")
    options["stop"] = [text for text in options.pop("until") if text]
    if not options["do_sample"]:
        options.pop("temperature", None)  # the harness sets 0
    return options


def main() -> None:
    """Run the harness' command line."""
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except SoftHubError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
