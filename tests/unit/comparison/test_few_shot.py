"""Few-shot prompts: what is shown, and that sharing what all rows begin with changes nothing."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from softhub.comparison.few_shot import choose_shots, predict_few_shot, written_out
from softhub.engine import PromptModel
from softhub.errors import TaskError
from softhub.tasks import Example
from tests.unit.core.prompts import MOOD, SUMMARY
from tests.unit.core.references import sequence_logprob

TRAIN = [Example({"text": f"text {n}"}, "good" if n % 3 else "bad", None) for n in range(30)]
TEXTS = [Example({"text": text}, "good", None) for text in ("It broke.", "I love it", "value")]


def test_shots_are_even_over_labels_and_differ_by_seed():
    for count in (2, 4, 8):
        shots = choose_shots(MOOD, TRAIN, count, seed=1)
        assert Counter(shot.label for shot in shots) == {"good": count // 2, "bad": count // 2}
        assert len({shot.row["text"] for shot in shots}) == count
    assert choose_shots(MOOD, TRAIN, 4, 1) == choose_shots(MOOD, TRAIN, 4, 1)
    assert choose_shots(MOOD, TRAIN, 4, 1) != choose_shots(MOOD, TRAIN, 4, 2)
    assert {choose_shots(MOOD, TRAIN, 1, seed)[0].label for seed in range(20)} == {"good", "bad"}


def test_a_label_that_runs_out_leaves_room_for_the_others():
    few = [*TRAIN[:1], *(example for example in TRAIN if example.label == "good")]
    shots = choose_shots(MOOD, few, 6, seed=0)
    assert Counter(shot.label for shot in shots) == {"good": 5, "bad": 1}
    assert len(choose_shots(MOOD, few[:3], 8, seed=0)) == 3


def test_solved_examples_are_written_with_their_words():
    shots = [TRAIN[0], TRAIN[1]]
    assert written_out(MOOD, MOOD.template, shots) == (
        "Review: text 0\nSentiment: negative\n\nReview: text 1\nSentiment: positive\n\n"
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral", "t5"])
def test_scores_are_those_of_the_whole_text_one_at_a_time(kind, loaded):
    base = loaded(kind)
    model = PromptModel(base)
    shots = choose_shots(MOOD, TRAIN, 4, seed=0)
    found = predict_few_shot(model, MOOD, MOOD.template, shots, TEXTS, batch_size=2)
    candidates = model.encoder.candidates(MOOD.template, MOOD.verbalizer)
    solved = written_out(MOOD, MOOD.template, shots)
    start = base.model.config.decoder_start_token_id if base.is_encoder_decoder else None
    for example, prediction in zip(TEXTS, found, strict=True):
        text = solved + MOOD.template.render(example.row)
        ids = model.encoder.encode_plain(text).ids
        words = [sequence_logprob(base.model, ids, s, start) for s in candidates.sequences]
        for index, label in enumerate(candidates.labels):
            own = [w for w, o in zip(words, candidates.owners, strict=True) if o == index]
            expected = torch.tensor(own).logsumexp(0).item()
            assert prediction.scores[label] == pytest.approx(expected, rel=1e-5, abs=1e-4)
        assert prediction.label == max(prediction.scores, key=prediction.scores.get)


def test_braces_in_a_shown_text_are_only_text(loaded):
    """A solved example that reads like a placeholder is not expanded."""
    model = PromptModel(loaded("llama"))
    shots = [Example({"text": "{text} {label}"}, "good", None)]
    (found,) = predict_few_shot(model, MOOD, MOOD.template, shots, TEXTS[:1])
    assert set(found.probabilities) == {"good", "bad"}


@pytest.mark.parametrize("task", [SUMMARY, replace(MOOD, system="Be brief.")])
def test_chats_and_generation_are_refused(task, loaded):
    with pytest.raises(TaskError, match="classification tasks of plain text"):
        predict_few_shot(PromptModel(loaded("llama")), task, task.template, [], TEXTS)
