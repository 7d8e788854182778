"""Tasks and random soft prompts for tiny bases."""

import torch

from softhub.adapter.manifest import Manifest
from softhub.inference.engine import PromptModel
from softhub.model.prefix import prefix_shape, units_of, vectors_of_prompt
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Task, Template, Verbalizer

TEXTS = [
    "Great value, easy to use.",
    "It broke after two days and nobody answered my mail, which is not what I paid for.",
    "Good.",
    "The battery lasts a whole day and the camera takes sharp pictures of the heart.",
    "A waste of money 🙂",
]
MOOD = Task(
    name="mood",
    kind="classification",
    template=Template("Review: {text}\nSentiment:"),
    verbalizer=Verbalizer.from_mapping({"good": " positive", "bad": [" negative", " not good"]}),
)
TOPIC = Task(
    name="topic",
    kind="classification",
    template=Template("{text} It is about the"),
    verbalizer=Verbalizer.from_mapping(
        {"phone": " phone", "body": " nervous system", "money": " price"}
    ),
)
SUMMARY = Task(
    name="summary",
    kind="generation",
    template=Template("{text} The answer is"),
    generation={"max_new_tokens": 6},
)
# The prompts of the fixture `model_of`: task, rows and seed of each.
PROMPTS = {"mood": (MOOD, 5, 0), "topic": (TOPIC, 12, 1), "summary": (SUMMARY, 9, 2)}


def soft_prompt(base, tokens, task=None, *, seed=0, **changes):
    """A random prompt of `tokens` rows for a base; `changes` are fields of its manifest."""
    fields = {
        "base_model": base.name,
        "task_type": base.task_type,
        "num_virtual_tokens": tokens,
        "hidden_size": base.hidden_size,
        "base_revision": None,
        "base_quantization": base.quantization,
        "fingerprint": base.fingerprint,
        "task": task.to_record() if task else None,
        "provenance": {"seed": seed},
        "metrics": (),
        "license": None,
        "files": {},
        "softhub_version": "0.1.0",
    }
    manifest = Manifest(**{**fields, **changes})
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(tokens, manifest.width, generator=generator)
    return SoftPrompt(vectors, manifest)


def prefix(base, tokens, task=None, *, seed=0, **changes):
    """A prefix of `tokens` virtual tokens for a base: random keys and values of its own size."""
    shape = prefix_shape(base)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(tokens, base.hidden_size, generator=generator)
    near = vectors_of_prompt(base, start)  # [P, width]
    noise = torch.randn(near.shape, generator=generator) * units_of(near, shape)
    manifest = soft_prompt(
        base, tokens, task, seed=seed, hidden_size=None, prefix=shape, **changes
    ).manifest
    return SoftPrompt(near + noise, manifest)


def model_with(base, prompts):
    """A model of a base, with prompts loaded under their names."""
    model = PromptModel(base)
    for name, prompt in prompts.items():
        model.load_prompt(prompt, name=name)
    return model
