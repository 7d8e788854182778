"""Generated text against plain PEFT and transformers, one row at a time, prompts mixed."""

import inspect
from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer

from softhub.errors import ConfigError, TaskError
from softhub.inference.engine import PromptModel
from softhub.model.assembly import PADDED
from softhub.model.probe import Capabilities, TextAnswers
from softhub.tasks import Template
from tests.prompts import MOOD, PROMPTS, SUMMARY, TEXTS, soft_prompt
from tests.references import assert_equal_in_float32, greedy, reference, sequence_logprob
from tests.tiny import BUILDERS

NAMES = ["mood", "summary", None, "topic", "summary"]


def expect_each_alone(model, folder, found, tokens, **options):
    """Each row is what plain PEFT gives it alone, wherever the choice of a token is clear."""
    close_calls = 0
    for answer, text, name in zip(found, TEXTS, NAMES, strict=True):
        shown = text if name is None else PROMPTS[name][0].template.render({"text": text})
        expected, margin = greedy(model, folder, name, shown, tokens, **options)
        if margin > 1e-3:
            assert answer == expected
        else:
            close_calls += 1
    assert close_calls <= 1


@pytest.mark.parametrize("kind", [*BUILDERS, "bart"])
def test_mixed_batch_generates_what_plain_peft_does_row_by_row(kind, model_of, folder_of):
    model = model_of(kind)
    found = model.generate(TEXTS, prompt=NAMES, max_new_tokens=6)
    expect_each_alone(model, folder_of(kind), found, 6)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_penalties_count_the_text_as_they_do_in_plain_peft(kind, model_of, folder_of):
    """And neither the prompt nor the pads, whichever way the prompt goes in."""
    model = model_of(kind)
    options = {"repetition_penalty": 3.0}
    found = model.generate(TEXTS, prompt=NAMES, max_new_tokens=6, **options)
    assert found != model.generate(TEXTS, prompt=NAMES, max_new_tokens=6)
    expect_each_alone(model, folder_of(kind), found, 6, **options)


# --- the two ways in ---


@pytest.fixture
def fed(monkeypatch):
    """`fed(model)`: the shapes of what goes through the model, forward by forward."""

    def watch(model):
        shapes, forward = [], model.base.model.forward

        def watching(*args, **kwargs):
            given = kwargs.get("input_ids")
            shapes.append(tuple((kwargs["inputs_embeds"] if given is None else given).shape[:2]))
            return forward(*args, **kwargs)

        watching.__signature__ = inspect.signature(forward)
        monkeypatch.setattr(model.base.model, "forward", watching)
        return shapes

    return watch


def test_a_prompt_goes_through_the_model_once_for_all_rows_and_calls(model_of, fed):
    model = model_of("llama")
    model.generate(TEXTS[:1], prompt="summary", max_new_tokens=1)
    shapes = fed(model)
    model.generate(TEXTS[1:4], prompt="summary", max_new_tokens=3)
    longest = max(
        len(model.encoder.encode(SUMMARY.template, {"text": text}).ids) for text in TEXTS[1:4]
    )
    assert shapes == [(3, longest), (3, 1), (3, 1)]


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2", "opt"])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_both_ways_in_give_the_same_text(kind, options, model_of, monkeypatch):
    model = model_of(kind)
    options = {"prompt": NAMES, "max_new_tokens": 12, **options}
    shared = model.generate(TEXTS, **options)
    embeddings = TextAnswers(PADDED, from_cache=False)
    monkeypatch.setattr(Capabilities, "texts", lambda *_, **__: embeddings)
    assert model.generate(TEXTS, **options) == shared


def test_beams_of_a_mixed_batch_equal_each_row_alone(model_of):
    for kind in ("llama", "mistral"):
        model = model_of(kind)
        options = {"num_beams": 3, "max_new_tokens": 5}
        alone = [
            model.generate([text], prompt=name, **options)[0]
            for text, name in zip(TEXTS, NAMES, strict=True)
        ]
        assert model.generate(TEXTS, prompt=NAMES, **options) == alone


# --- tasks ---


def test_generation_options_come_from_the_task_and_the_call(model_of):
    model = model_of("llama")
    tokenizer = model.base.tokenizer
    short, long, longer = (
        model.generate(TEXTS[:1], prompt="summary", **options)[0]
        for options in ({"max_new_tokens": 2}, {}, {"max_new_tokens": 12})
    )
    assert long.startswith(short) and longer.startswith(long)
    lengths = [len(tokenizer(text)["input_ids"]) for text in (short, long, longer)]
    assert lengths == sorted(set(lengths))


def test_a_task_serves_the_rows_whose_prompt_brings_none(model_of):
    model = model_of("llama")
    model.load_prompt(soft_prompt(model.base, 5), name="foreign")
    task = replace(SUMMARY, template=Template("Sum up: {text}\n"), generation={"max_new_tokens": 4})
    names = ["summary", None, "foreign"]
    found = model.generate(TEXTS[:3], prompt=names, task=task)
    shown = [task.template.render({"text": text}) for text in TEXTS]
    assert found == [
        model.generate([TEXTS[0]], prompt="summary")[0],
        model.generate([shown[1]], max_new_tokens=4)[0],
        model.generate([shown[2]], prompt="foreign", max_new_tokens=4)[0],
    ]
    assert model.generate(TEXTS[:1], task=task, max_new_tokens=7) != found[1:2]


def test_three_tasks_in_one_call_give_what_each_gives_alone(loaded):
    """Their options differ, so they share a call and not a batch."""
    for kind in ("llama", "t5"):
        model = PromptModel(loaded(kind))
        tasks = [
            replace(SUMMARY, name="translation", generation={"max_new_tokens": 5, "stop": ["\n"]}),
            replace(SUMMARY, name="summary", generation={"max_new_tokens": 9}),
            replace(SUMMARY, name="code", generation={"max_new_tokens": 9, "num_beams": 2}),
        ]
        for seed, task in enumerate(tasks):
            model.load_prompt(soft_prompt(model.base, 4 + seed, task, seed=seed))
        names = [task.name for task in tasks] * 2
        texts = [*TEXTS, "One more."]
        alone = [
            model.generate([text], prompt=name)[0] for text, name in zip(texts, names, strict=True)
        ]
        assert model.generate(texts, prompt=names) == alone


# --- where a text ends ---


def new_text(model, text, name):
    return model.generate([text], prompt=name, max_new_tokens=12)[0]


@pytest.mark.parametrize("kind", ["llama", "gemma2", "t5"])
def test_a_text_ends_before_the_first_stop_string(kind, model_of):
    """However the tokens divide it; the other rows go on."""
    model = model_of(kind)
    whole = [new_text(model, text, "summary") for text in TEXTS]
    ends = (text[at : at + 2] for text in whole for at in range(3, len(text) - 2))
    stop = next(end for end in ends if "\ufffd" not in end)
    cut = [text.split(stop)[0] for text in whole]
    assert cut != whole
    for batch_size in (1, 5):
        found = model.generate(
            TEXTS, prompt="summary", max_new_tokens=12, stop=[stop, "never"], batch_size=batch_size
        )
        assert found == cut
    assert model.generate(TEXTS, prompt="summary", max_new_tokens=12, stop=stop) == cut
    task = replace(SUMMARY, generation={"max_new_tokens": 12, "stop": [stop]})
    model.load_prompt(soft_prompt(model.base, 9, task, seed=2), name="stopping")
    assert model.generate(TEXTS, prompt="stopping") == cut


def test_generating_ends_when_every_row_has_met_a_stop_string(model_of, fed):
    model = model_of("llama")
    stops = [new_text(model, text, "summary")[:2] for text in TEXTS]
    shapes = fed(model)
    model.generate(TEXTS, prompt="summary", max_new_tokens=12, stop=stops)
    assert len(shapes) < 6


def test_a_stop_string_in_the_text_stops_nothing(model_of):
    model = model_of("llama")
    options = {"max_new_tokens": 4, "stop": [" good.\n"]}
    assert model.generate(["It is good.\n"], **options)[0]


@pytest.mark.parametrize("stop", [[""], 3, [3]])
def test_a_stop_that_is_no_text_is_refused(stop, model_of):
    with pytest.raises((ConfigError, TaskError), match=r"stop is .*expected"):
        model_of("llama").generate(TEXTS, stop=stop)


def test_the_tokenizer_s_end_ends_a_text_whatever_the_model_says(model_of, folder_of):
    """It is what training ends the references with."""
    model = model_of("llama")
    tokenizer = AutoTokenizer.from_pretrained(folder_of("llama"))
    ids = tokenizer("Good.", return_tensors="pt")["input_ids"]
    new = model.base.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=9)
    new = new[0, ids.shape[1] :].tolist()
    end = next(token for token in new[3:] if token not in new[:3])
    assert model.base.model.generation_config.eos_token_id != end
    tokenizer.add_special_tokens({"eos_token": tokenizer.convert_ids_to_tokens(end)})
    other = PromptModel(replace(model.base, tokenizer=tokenizer))
    kept = tokenizer.decode(new[: new.index(end)])
    assert other.generate(["Good."], max_new_tokens=9) == [kept]


def test_rows_that_end_early_are_filled_with_nothing(model_of, monkeypatch):
    """Even if the model's own pad is a token that decodes to text."""
    model = model_of("llama")
    tokenizer = model.base.tokenizer
    alone = [model.generate([text], prompt="summary", max_new_tokens=8)[0] for text in TEXTS]
    ends = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in alone]
    end = next(t for t in ends[0][1:5] if any(t not in other for other in ends))
    monkeypatch.setattr(model.base.model.generation_config, "pad_token_id", 40)
    options = {"prompt": "summary", "max_new_tokens": 8, "eos_token_id": end}
    stopped = [model.generate([text], **options)[0] for text in TEXTS]
    assert len({len(tokenizer(text)["input_ids"]) for text in stopped}) > 1
    assert model.generate(TEXTS, **options) == stopped


# --- reference texts ---


@pytest.mark.parametrize("kind", ["llama", "gemma2", "opt", "t5", "bart"])
def test_reference_texts_score_as_in_plain_peft_row_by_row(kind, model_of, folder_of):
    model = model_of(kind)
    targets = [" yes", " no, it is not", " true or false", " good value for the price", " no"]
    found = model.target_logprobs(TEXTS, targets, prompt=NAMES, task=MOOD)
    for scores, text, name, target in zip(found, TEXTS, NAMES, targets, strict=True):
        plain, tokenizer = reference(model, folder_of(kind), name)
        task = PROMPTS[name][0] if name else MOOD
        ids = tokenizer(task.template.render({"text": text}))["input_ids"]
        start = None
        if model.base.is_encoder_decoder:
            target, start = target.strip(), model.base.model.config.decoder_start_token_id
        answer = tokenizer(target, add_special_tokens=False)["input_ids"]
        answer.append(tokenizer.eos_token_id)
        assert len(scores) == len(answer)
        assert_equal_in_float32(sum(scores), sequence_logprob(plain, ids, answer, start))
    one_by_one = model.target_logprobs(TEXTS, targets, prompt=NAMES, task=MOOD, batch_size=1)
    for scores, alone in zip(found, one_by_one, strict=True):
        assert_equal_in_float32(scores, alone)


def test_reference_texts_need_a_task_and_one_text_each(model_of):
    model = model_of("llama")
    with pytest.raises(TaskError, match=r"requires a task; found none.*task="):
        model.target_logprobs(TEXTS[:1], [" yes"])
    with pytest.raises(TaskError, match="1 targets for a list of 5 texts"):
        model.target_logprobs(TEXTS, [" yes"], prompt="summary")
    for targets, texts in ((" yes.", TEXTS), ([" yes"], TEXTS[0])):
        with pytest.raises(TaskError, match="expected one target for each text"):
            model.target_logprobs(texts, targets, prompt="summary")
