"""Training examples per second: softhub compared with stock PEFT + Trainer, and with the bound.

    python benchmarks/train_step.py

Both sides train the demo base model with `transformers.Trainer` on the same rows, with the same
batch size and number of threads, in one process. PEFT is used as its documentation shows:
`get_peft_model`, labels of -100 on the text, padding on the right to the longest text of the batch,
and a loss over the full vocabulary. softhub also runs with prompt and texts in two passes instead
of one packed row, and with a prefix of as many virtual tokens. The bound is the forward and
backward pass of the frozen model alone, over P tokens once and over B x T tokens, without head,
loss or optimizer. All sides take turns, and the step time of a round is the median of its steps,
because other work on the machine slows down single steps.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from unittest import mock

import torch
from peft import PromptTuningConfig, get_peft_model
from record import DEMO_BASE, command_line, write
from stock_peft import padded_on_the_right
from transformers import Trainer, TrainerCallback, TrainingArguments

from softhub import Task, load_base
from softhub.model.device_settings import DEVICE_SETTINGS, settings_of
from softhub.model.encoding import Candidates, Encoder
from softhub.model.prefix import prefix_shape, vectors_of_prompt
from softhub.training import PromptTrainingArguments
from softhub.training.data import EncodedExamples, encode_examples
from softhub.training.module import PromptTuningModule
from softhub.training.trainer import PromptTrainer

BATCH, STEPS, WARM_UP, ROUNDS = 8, 6, 2, 5
CASES = {"20/8/48": (20, 48), "100/8/32": (100, 32), "real lengths, P = 16": (16, None)}


class Clock(TrainerCallback):
    """Measure the wall time of each step."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *args, **kwargs):
        self.start = time.perf_counter()

    def on_step_end(self, *args, **kwargs):
        self.seconds.append(time.perf_counter() - self.start)


def rows_of(base, task, length):
    """Return encoded training rows, as they are or of `length` tokens including the label."""
    encoder = Encoder(base.tokenizer, is_encoder_decoder=False)
    candidates = encoder.candidates(task.template, task.verbalizer)
    rows = encode_examples(encoder, task, task.load("train"), candidates, None)
    if length is not None:
        stream = [token for ids in rows.inputs for token in ids]
        size = length - 1
        count = min(256, len(stream) // size)
        texts = tuple(tuple(stream[i * size : (i + 1) * size]) for i in range(count))
        rows = EncodedExamples(texts, rows.answers[:count])
    return rows, candidates


def options(folder):
    return {
        "output_dir": folder,
        "max_steps": STEPS,
        "learning_rate": 0.001,
        "per_device_train_batch_size": BATCH,
        "eval_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": not torch.cuda.is_available(),
    }


def ours(base, tokens, rows, candidates, task, seed, *, packed=True, prefix=None):
    clock = Clock()
    vectors = base.embed(torch.arange(100, 100 + tokens)).detach()
    vectors = vectors_of_prompt(base, vectors) if prefix else vectors
    with tempfile.TemporaryDirectory() as folder:
        args = PromptTrainingArguments(**options(folder), load_best_model_at_end=False, seed=seed)
        tuner = PromptTuningModule(base, vectors, candidates, prefix=prefix)
        trainer = PromptTrainer(tuner, task, args, rows, rows, [clock])
        settings = {args.device.type: replace(settings_of(args.device), packs=packed)}
        with mock.patch.dict(DEVICE_SETTINGS, settings):
            trainer.train()
    return clock.seconds[WARM_UP:]


def peft(base, tokens, rows, candidates: Candidates, seed):
    """Train with stock PEFT + Trainer on the same texts, each followed by its label."""
    clock = Clock()
    data = []
    for ids, label in zip(rows.inputs, rows.answers, strict=True):
        text = list(ids)
        answer = list(candidates.sequences[label])
        data.append({"input_ids": text + answer, "labels": [-100] * len(text) + answer})

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=tokens)
    model = get_peft_model(base.model, config)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(**options(folder), seed=seed)
        trainer = Trainer(
            model, args, data_collator=padded_on_the_right, train_dataset=data, callbacks=[clock]
        )
        trainer.train()
    base.model.eval()
    return clock.seconds[WARM_UP:]


def bound(base, tokens, length):
    """Run forward and backward over P tokens once and over B x T tokens."""
    seconds = []
    body = base.model.base_model
    for _ in range(3):
        start = time.perf_counter()
        for shape in ((1, tokens), (BATCH, length)):
            embedded = base.embed(torch.full(shape, 100)).requires_grad_()
            body(inputs_embeds=embedded, use_cache=False).last_hidden_state.sum().backward()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def measure(base, task, name):
    tokens, length = CASES[name]
    rows, candidates = rows_of(base, task, length)
    sides = {
        "peft": lambda seed: peft(base, tokens, rows, candidates, seed),
        "softhub": lambda seed: ours(base, tokens, rows, candidates, task, seed),
        "two_passes": lambda seed: ours(base, tokens, rows, candidates, task, seed, packed=False),
        "prefix": lambda seed: ours(
            base, tokens, rows, candidates, task, seed, prefix=prefix_shape(base)
        ),
    }
    if length is not None:
        sides["bound"] = lambda seed: bound(base, tokens, length)
    seconds = {side: [] for side in sides}
    for seed in range(ROUNDS):
        for side, run in sides.items():
            seconds[side].append(statistics.median(run(seed)))
    figures = {f"{side}_step_seconds": rounds for side, rounds in seconds.items()}
    for side in ("peft", "softhub"):
        figures[f"{side}_examples_per_second"] = BATCH / statistics.median(seconds[side])
    for side in sides.keys() - {"softhub"}:
        ratios = [other / own for other, own in zip(seconds[side], seconds["softhub"], strict=True)]
        figures[f"{side}_to_softhub"] = {"median": statistics.median(ratios), "rounds": ratios}
    found = {side: figures[f"{side}_to_softhub"]["median"] for side in sides.keys() - {"softhub"}}
    print(f"{name}: {found}")
    return figures


def main():
    parser = command_line(__doc__)
    parser.add_argument("--name", default="train_step", help="name of the results")
    chosen = parser.parse_args()
    base = load_base(DEMO_BASE)
    task = Task.from_file("recipes/tasks/sentiment.yaml")
    cases = {name: measure(base, task, name) for name in CASES}
    write(
        chosen.name,
        {"batch": BATCH, "rounds": ROUNDS, "steps_a_round": STEPS - WARM_UP, "cases": cases},
    )


if __name__ == "__main__":
    main()
