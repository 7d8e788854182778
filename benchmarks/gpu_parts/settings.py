"""Which `DeviceSettings` are fastest on this device? Each field is tried alone."""

from dataclasses import replace
from functools import partial
from unittest import mock

import torch

from gpu_parts.models import WORDS, random_vectors, token_rows
from gpu_parts.speed import SHAPES, own_step, token_batch
from softhub import PromptModel
from softhub.model.device_settings import DEVICE_SETTINGS, settings_of
from softhub.model.encoding import Candidates
from softhub.model.scoring import encode_rows, label_scores
from softhub.training.module import PromptTuningModule

SHARED = (8, 16, 32, 64, 128)  # common tokens at the beginning of texts
GAIN = 0.97
"""A choice wins only if it takes less than this part of the default's time."""


def settings(machine, shape):
    """Try every choice, and return the settings that won."""
    base = machine.llama(shape)
    best, times = settings_of(machine.device), {}
    for field, (run_of, values) in CHOICES.items():
        times[field] = compare_settings(machine, run_of(machine, base), best, field, values)
        best = replace(best, **{field: winner(times[field], getattr(best, field))})
    times["least_shared"], least = shared_beginnings(machine, base, best)
    best = replace(best, least_shared=least)
    changed = {
        field: value
        for field, value in vars(best).items()
        if value != getattr(settings_of(machine.device), field)
    }
    return {
        "seconds_by_choice": times,
        "best": vars(best),
        "entry": f'"{machine.device.type}": {best}',
        "passed": None,
        "summary": f"faster than the default: {changed or 'nothing'}",
    }


def using(machine, chosen):
    """Return a context in which the device has other settings."""
    return mock.patch.dict(DEVICE_SETTINGS, {machine.device.type: chosen})


def compare_settings(machine, run, best, field, values):
    """Return the seconds of a run for each value of a field; None where memory did not suffice."""

    def run_with(value):
        with using(machine, replace(best, **{field: value})):
            run()

    found = machine.compare({value: partial(run_with, value) for value in values})
    return {value: each.get("seconds") for value, each in found.items()}


def winner(seconds, default):
    """Return the fastest value, or the default if none is clearly faster."""
    able = {value: each for value, each in seconds.items() if each is not None}
    fastest = min(able, key=able.get, default=default)
    if default in able and not able[fastest] < GAIN * able[default]:
        return default
    return fastest


def training_run(machine, base):
    """Return a function that makes a training step of each size."""
    steps = [own_step(machine, base, *machine.sized(case))[0] for case in SHAPES[:2]]
    return lambda: [step() for step in steps]


def target_run(machine, base):
    """Return a function that computes the loss of reference texts and its gradient."""
    module = PromptTuningModule(base, random_vectors(base, 20), None).train()
    texts = token_batch(machine, 8, 32)
    targets = torch.randint(2, WORDS, (8, 256), device=machine.device)

    def run():
        with module.packed_attention():
            module(texts.ids, texts.mask, targets)["loss"].backward()

    return run


def label_run(machine, base):
    """Return a function that scores 32 labels of three tokens behind 32 texts."""
    words = [tuple(row) for row in token_rows([3] * 32, seed=1)]
    names = tuple(map(str, range(len(words))))
    candidates = Candidates(names, tuple(words), tuple(range(len(words))))
    texts = token_batch(machine, 32, 64)

    @torch.no_grad()
    def run():
        encoded = encode_rows(base, [None] * 32, texts, keep_cache=True)
        label_scores(base, encoded, candidates)

    return run


def shared_beginnings(machine, base, best):
    """Return the times with and without sharing, and from how many tokens on sharing pays.

    Sharing pays from the shortest beginning on from which it is faster for all longer ones.
    """
    model, times, least = PromptModel(base), {}, best.least_shared
    options = {"max_new_tokens": 1, "batch_size": 32}
    for length in reversed(SHARED):
        common, own = token_rows([length])[0], token_rows([32] * 32, seed=2)
        texts = [" ".join(f"w{n}" for n in (*common, *row)) for row in own]
        run = partial(model.generate, texts, **options)
        found = compare_settings(machine, run, best, "least_shared", (1, 10**6))
        times[length] = {"shared": found[1], "not_shared": found[10**6]}
    for length in reversed(SHARED):
        shared, apart = times[length].values()
        if shared is None or apart is None or shared > apart:
            break
        least = length
    return times, least


CHOICES = {  # attention first: packing wins or loses with the faster of the two
    "attends_in_groups": (training_run, (True, False)),
    "packs": (training_run, (True, False)),
    "logits_at_once": (target_run, (2**23, 2**25, 2**27)),
    "continuations_at_once": (label_run, (64, 256, 1024)),
}
