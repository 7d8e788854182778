"""The search for a hard prompt: what it combines, what it spends, and that it finds the best."""

import math
from dataclasses import replace

import pytest

from softhub.errors import DatasetError, TaskError
from softhub.evaluation.prompt_search import (
    combinations,
    instructions,
    search_hard_prompt,
)
from softhub.inference.engine import Prediction, PromptModel
from softhub.metrics import compute
from softhub.model.loading import load_base
from softhub.tasks import Example, Template, Verbalizer
from tests.prompts import MOOD

FRAMES = (Template("Review: {text}\nMood:"), Template("{text}\n\nI feel"))
TASK = replace(MOOD, description="Mood of a review.", hard_templates=FRAMES, metrics=("accuracy",))
LABELS = TASK.verbalizer.labels


def examples(count, split="dev"):
    return [
        Example({"text": f"{split} {n}"}, LABELS[n % 3 > 0], group=str(n)) for n in range(count)
    ]


class Scripted:
    """An engine whose log-odds of the right label depend on the prompt and on the text."""

    def __init__(self, strength, base):
        self.strength, self.base, self.encoder, self.scored = strength, base, base.encoder, 0

    def predict(self, rows, *, task, prompt=None, batch_size, progress):
        assert prompt is None, "hard prompts are for the bare base"
        self.scored += len(rows)
        return [self.answer(task.template.text, row) for row in rows]

    def answer(self, template, row):
        number = int(row["text"].split()[1])
        odds = self.strength(template) - (number % 7)  # right where the prompt is strong enough
        right = LABELS[number % 3 > 0]
        share = 1 / (1 + math.exp(-odds))
        probabilities = {label: share if label == right else 1 - share for label in LABELS}
        scores = {label: math.log(value) for label, value in probabilities.items()}
        return Prediction(max(scores, key=scores.__getitem__), probabilities, scores)


def test_instructions_are_made_of_what_the_task_says():
    said = instructions(TASK)
    assert said[0] == "Mood of a review."
    assert said[1].startswith("Options: ") and said[2] == f"{said[0]}\n{said[1]}"
    found = combinations(TASK)
    assert len(found) == len(set(found)) == 4 * len({*FRAMES, TASK.template})
    assert (f"{said[2]}\n\n", FRAMES[1]) in found
    braces = replace(TASK, description="Mood of {reviews}.")
    assert all("{reviews}" not in text for text in instructions(braces))


def test_the_best_combination_is_found_on_a_part_of_the_budget_of_trying_all(model):
    """Chats show no solved examples, so that only instructions and templates are compared."""
    words = Verbalizer.from_mapping({label: label for label in LABELS})
    chat = replace(TASK, system="Be brief.", verbalizer=words)
    instruction = f"{instructions(chat)[2]}\n\n"
    best = instruction + FRAMES[1].text
    scripted = Scripted(lambda template: 6.5 if template == best else 2.5, model.base)
    dev = examples(200)
    found = search_hard_prompt(scripted, chat, examples(20, "train"), dev, seed=0)
    assert (found.instruction, found.template) == (instruction, FRAMES[1])
    assert (found.text, found.shots, found.dev_score) == (best, (), 1.0)
    assert found.candidates == len(combinations(chat))
    assert found.texts == scripted.scored < 0.5 * found.candidates * len(dev)


@pytest.fixture
def model(tiny_base):
    return PromptModel(load_base(tiny_base("llama")))


def test_solved_examples_are_added_while_they_help(model):
    """A real engine encodes them; the answers are scripted: each example helps, up to two."""
    shown = lambda template: 1.5 + 2 * min(template.count("{answer "), 2)  # noqa: E731
    scripted = Scripted(shown, model.base)
    train = examples(30, "train")
    found = search_hard_prompt(scripted, TASK, train, examples(40), seed=1)
    assert len(found.shots) == 2 and found.texts == scripted.scored
    assert all(shot in train for shot in found.shots)
    assert found.text.startswith(found.instruction) and found.text.count("train ") == 2
    assert not found.instruction or found.text.count(found.instruction) == 1
    assert found.to_record()["dev_texts_scored"] == found.texts
    little = search_hard_prompt(scripted, TASK, train, examples(40), seed=1, most_texts=1)
    assert len(little.shots) == 1  # a comparison that has begun is finished


def test_it_is_the_same_for_the_same_seed_and_scores_what_it_says(model):
    train, dev = examples(20, "train"), examples(12)
    first, again = (
        search_hard_prompt(model, TASK, train, dev, seed=3, most_texts=1) for _ in range(2)
    )
    assert first == again
    labels = first.answer(model, TASK, dev)
    references = [example.label for example in dev]
    assert compute("accuracy", labels, references) == pytest.approx(first.dev_score)


def test_prompts_that_leave_no_room_for_a_text_are_left_out(model):
    """Two long examples fit into the context of 512 tokens; and the long description never does."""
    long = replace(TASK, description="word " * 600)
    shown = lambda template: 1.5 + template.count("{answer ")  # noqa: E731
    train = [Example({"text": f"train {n} " + "word " * 60}, LABELS[n % 2]) for n in range(20)]
    found = search_hard_prompt(Scripted(shown, model.base), long, train, examples(40), seed=1)
    assert not found.instruction.startswith("word") and len(found.shots) == 2
    assert search_hard_prompt(model, long, train, examples(8), seed=1).answer(
        model, long, examples(3)
    )


def test_that_no_prompt_leaves_room_is_an_error(model):
    template = Template("word " * 600 + "{text}")
    long = replace(TASK, template=template, hard_templates=(template,))
    with pytest.raises(TaskError, match="its template alone has more than the 508 that fit"):
        search_hard_prompt(model, long, [], examples(8), seed=1)


def test_without_dev_examples_there_is_nothing_to_search(model):
    with pytest.raises(DatasetError, match="There is no dev example"):
        search_hard_prompt(model, TASK, examples(8), [], seed=1)
