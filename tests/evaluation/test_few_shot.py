"""Few-shot prompts: what is shown, and that sharing what all rows begin with changes nothing."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from softhub.errors import SoftHubWarning, TaskError
from softhub.evaluation.few_shot import _stop as stop_strings
from softhub.evaluation.few_shot import (
    few_shot_rows,
    few_shot_task,
    generate_few_shot,
    predict_few_shot,
    shown_tokens,
    written_out,
)
from softhub.experiments.comparison.methods import jobs
from softhub.experiments.comparison.setup import ComparisonSetup
from softhub.inference.engine import PromptModel
from softhub.tasks import Example, Splits, Template
from softhub.tasks.sampling import choose_shots
from softhub.training import PromptTrainingArguments
from tests.prompts import MOOD, SUMMARY
from tests.references import sequence_logprob

TRAIN = [Example({"text": f"text {n}"}, "good" if n % 3 else "bad", None) for n in range(30)]
PAIRS = [Example({"text": f"text {n}"}, target=f"answer {n}") for n in range(12)]
TEXTS = [Example({"text": text}, "good", None) for text in ("It broke.", "I love it", "value")]


def encoded(model, task, template, shots, examples):
    shown = few_shot_task(model, task, template, shots)
    return [
        model.encoder.encode(
            shown.template, row, text_column=task.text_column, room=shown.max_length
        ).ids
        for row in few_shot_rows(task, template, shots, examples)
    ]


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


def test_shots_of_a_generation_are_drawn_by_the_seed():
    shots = choose_shots(SUMMARY, PAIRS, 4, seed=1)
    assert len({shot.target for shot in shots}) == 4
    assert shots == choose_shots(SUMMARY, PAIRS, 4, seed=1) != choose_shots(SUMMARY, PAIRS, 4, 2)
    assert len(choose_shots(SUMMARY, PAIRS, 99, seed=0)) == len(PAIRS)


@pytest.mark.parametrize(
    ("text", "target", "written"),
    [
        ("{text} in short:", "this", "a in short: this\n\n"),
        ("{text} in short:", " this", "a in short: this\n\n"),
        ("{text} in short:\n", "this", "a in short:\nthis\n\n"),
    ],
)
def test_reference_texts_stand_apart_from_the_template(text, target, written):
    assert written_out(SUMMARY, Template(text), [Example({"text": "a"}, target=target)]) == written


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_answers_are_those_of_the_whole_text_one_at_a_time(kind, loaded):
    """The reference: the engine, given the solved examples and the text as one plain text."""
    model = PromptModel(loaded(kind))
    shots = choose_shots(SUMMARY, PAIRS, 3, seed=0)
    found = generate_few_shot(model, SUMMARY, SUMMARY.template, shots, TEXTS, batch_size=2)
    solved = written_out(SUMMARY, SUMMARY.template, shots)
    for example, answer in zip(TEXTS, found, strict=True):
        text = solved + SUMMARY.template.render(example.row)
        assert model.generate([text], max_new_tokens=6) == [answer]


def test_the_examples_of_a_chat_are_its_turns(loaded):
    """Control tokens of the template stay such, those of a text do not."""
    model = PromptModel(loaded("llama"))
    tokenizer = model.encoder.tokenizer
    end = tokenizer.eos_token
    chat = Template(f"User: {{text}}{end}\nAssistant:\n")
    shots = [Example({"text": f"a {end} {{text}}"}, target="b")]
    (ids,) = encoded(model, SUMMARY, chat, shots, TEXTS[:1])
    assert tokenizer.decode(ids) == (
        f"User: a {end} {{text}}{end}\nAssistant:\nb{end}\nUser: It broke.{end}\nAssistant:\n"
    )
    assert ids.count(model.encoder.end_id) == 3
    alone = len(model.encoder.encode(chat, TEXTS[0].row).ids)
    assert shown_tokens(model, SUMMARY, chat, shots) == len(ids) - alone
    assert len(generate_few_shot(model, SUMMARY, chat, shots, TEXTS)) == len(TEXTS)


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("Lay words: {text}\nTerm:", ["\n"], ["\n", "\n\nLay words:"]),
        ("Translate.\n\n{text}\n", "END", ["END", "\n\nTranslate."]),
        ("{text}\nIn short:", ["\n"], ["\n"]),  # a text may begin with anything
    ],
)
def test_an_answer_ends_where_the_next_example_would_begin(text, stop, expected):
    assert stop_strings(Template(text), "\n\n", stop) == expected
    assert stop_strings(Template(text), "</s>\n", ["\n"]) == ["\n"]  # a chat's turns end themselves


@pytest.mark.parametrize("task", [SUMMARY, replace(MOOD, system="Be brief.")])
def test_chats_and_generation_are_refused(task, loaded):
    with pytest.raises(TaskError, match="classification tasks of plain text"):
        predict_few_shot(PromptModel(loaded("llama")), task, task.template, [], TEXTS)


@pytest.mark.parametrize("task", [MOOD, replace(SUMMARY, system="Be brief.")])
def test_only_texts_are_generated(task, loaded):
    with pytest.raises(TaskError, match="generation tasks without a system text"):
        generate_few_shot(PromptModel(loaded("llama")), task, task.template, [], TEXTS)


def test_texts_that_are_too_long_are_cut_and_counted(loaded):
    """The task's length is that of a text: what is shown before it takes nothing of it."""
    model, task = PromptModel(loaded("llama")), replace(MOOD, max_length=12)
    shots = choose_shots(MOOD, TRAIN, 2, seed=0)
    texts = [Example({"text": text}, "good", None) for text in ("fair", "great value " * 40)]
    with pytest.warns(SoftHubWarning, match="1 of 2 texts were too long"):
        predict_few_shot(model, task, task.template, shots, texts)
    short, cut = encoded(model, task, task.template, shots, texts)
    shown = shown_tokens(model, task, task.template, shots)
    whole = encoded(model, MOOD, MOOD.template, shots, texts)
    assert short == whole[0] and len(cut) == shown + 12 < len(whole[1])


def test_a_comparison_has_a_row_for_each_number_and_order(loaded, tmp_path):
    setup = ComparisonSetup(
        task=replace(SUMMARY, metrics=("chrf",)),
        data=Splits(PAIRS[:6], PAIRS[6:9], PAIRS[9:]),
        load=lambda: loaded("llama"),
        args=PromptTrainingArguments(output_dir=str(tmp_path), use_cpu=True),
        methods=["few-shot"],
        seeds=[0, 1],
        shots=[1, 3],
    )
    rows = [job.run() for job in jobs(setup)]
    assert [(row.method, row.seed) for row in rows] == [
        (f"{count}-shot", seed) for seed in (0, 1) for count in (1, 3)
    ]
    assert all(len(row.predictions) == 3 and list(row.metrics) == ["chrf"] for row in rows)
    assert rows[1].prompt_tokens > rows[0].prompt_tokens > 0
