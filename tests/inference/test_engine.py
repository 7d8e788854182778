"""The engine's batches against plain PEFT and transformers, one row at a time."""

import json
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model

from softhub.errors import (
    ConfigError,
    IncompatiblePrompt,
    PromptNotLoaded,
    SoftHubWarning,
    TaskError,
)
from softhub.inference.engine import PromptModel
from softhub.model.encoding import render_chat
from softhub.model.loading import load_base
from softhub.tasks import Template
from tests.prompts import MOOD, TEXTS, TOPIC, soft_prompt
from tests.references import assert_equal_in_float32, reference, sequence_logprob
from tests.tiny import BUILDERS, DECODERS, build_base, build_tokenizer

NAMES = ["mood", "topic", None, "topic", "mood"]
LONG = "The sound is good, the screen is not great, the price is fair. " * 3


def expected_scores(model, folder, name, text):
    task = {"topic": TOPIC}.get(name, MOOD)
    plain, tokenizer = reference(model, folder, name)
    ids = tokenizer(task.template.text.replace("{text}", text))["input_ids"]
    config = plain.config if name is None else plain.get_base_model().config
    start = config.decoder_start_token_id if model.base.is_encoder_decoder else None
    scores = {}
    for label, words in task.verbalizer.words:
        words = [word.strip() if start is not None else word for word in words]
        answers = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        each = [sequence_logprob(plain, ids, answer, start) for answer in answers]
        scores[label] = torch.tensor(each).logsumexp(0).item()
    return scores


@pytest.mark.parametrize("kind", [*BUILDERS, "bart"])
def test_mixed_batch_predicts_what_plain_peft_does_row_by_row(kind, model_of, folder_of):
    model = model_of(kind)
    found = model.predict(TEXTS, prompt=NAMES, task=MOOD)
    for prediction, text, name in zip(found, TEXTS, NAMES, strict=True):
        expected = expected_scores(model, folder_of(kind), name, text)
        assert_equal_in_float32(prediction.scores, expected)
        assert prediction.label == max(expected, key=expected.__getitem__)
        assert sum(prediction.probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", [*BUILDERS, "bart"])
def test_a_row_depends_on_no_neighbour_and_on_no_padding_side(kind, model_of):
    model = model_of(kind)
    alone = model.predict(TEXTS[:1], prompt="mood")[0].scores
    texts = [TEXTS[0], *(f"{LONG} {n}" for n in range(31))]
    names = ["mood", *["mood", "topic", None] * 10, "topic"]
    side = model.base.tokenizer.padding_side
    try:
        for model.base.tokenizer.padding_side in ("left", "right"):
            for batch_size in (32, 3):
                among = model.predict(texts, prompt=names, task=MOOD, batch_size=batch_size)
                assert_equal_in_float32(among[0].scores, alone)
    finally:
        model.base.tokenizer.padding_side = side


@pytest.mark.parametrize("kind", DECODERS)
@torch.no_grad()
def test_evidence_plain_peft_is_wrong_in_a_left_padded_batch(kind, model_of, folder_of):
    """Why softhub has an assembly of its own: PEFT puts the prompt before the padding.

    OPT alone counts positions by the mask, whatever stands where, and comes out right.
    """
    plain, tokenizer = reference(model_of(kind), folder_of(kind), "mood")
    tokenizer.padding_side = "left"
    batch = tokenizer([TEXTS[0], LONG], padding=True, return_tensors="pt")
    alone = tokenizer(TEXTS[0], return_tensors="pt")
    padded = plain(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    error = (padded.logits[0, -1] - plain(**alone).logits[0, -1]).abs().max()
    assert error < 1e-4 if kind == "opt" else error > 1e-2


@pytest.mark.parametrize("kind", ["llama", "gemma2", "t5"])
def test_threads_with_different_prompts_do_not_meet(kind, model_of):
    expected = {}
    for name in ("mood", "topic", "summary"):
        model = model_of(kind)
        task = {} if name == "summary" else {"scores": model.predict(TEXTS, prompt=name)}
        expected[name] = (task, model.generate(TEXTS[:2], prompt=name, max_new_tokens=4))
    shared = model_of(kind)  # nothing is encoded yet: the threads also race for that

    def ask(name):
        task = {} if name == "summary" else {"scores": shared.predict(TEXTS, prompt=name)}
        return name, (task, shared.generate(TEXTS[:2], prompt=name, max_new_tokens=4))

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, ["mood", "topic", "summary"] * 4))
    for name, (scores, texts) in answers:
        assert texts == expected[name][1]
        for a, b in zip(scores.get("scores", []), expected[name][0].get("scores", []), strict=True):
            assert_equal_in_float32(a.scores, b.scores, floor=1e-5)


# --- prompts come and go ---


def test_prompts_are_loaded_named_replaced_and_unloaded(loaded, tmp_path):
    base = loaded("llama")
    model = PromptModel(base)
    folder = soft_prompt(base, 4, MOOD).save_pretrained(tmp_path / "from-folder")
    assert model.load_prompt(folder, name="from-folder") == "from-folder"
    assert model.load_prompt(folder) == "mood"
    assert model.load_prompt(soft_prompt(base, 4)) == "prompt"
    assert model.prompts == ("from-folder", "mood", "prompt")
    before = model.predict(TEXTS[:1], prompt="mood")[0].scores
    assert model.predict(TEXTS[:1], prompt="from-folder")[0].scores == before
    model.load_prompt(soft_prompt(base, 4, MOOD, seed=9), name="mood")
    assert model.predict(TEXTS[:1], prompt="mood")[0].scores != before
    model.unload_prompt("mood")
    assert model.prompts == ("from-folder", "prompt")
    for use in (model.unload_prompt, lambda name: model.predict(TEXTS, prompt=name)):
        with pytest.raises(PromptNotLoaded, match=r"'mood'.*from-folder, prompt.*load_prompt"):
            use("mood")


@pytest.mark.parametrize("name", ["pop", "keys", "forward", "a.b", "", "None"])
def test_any_name_will_do(name, loaded):
    """(PEFT raises KeyError for some of these.)"""
    base = loaded("llama")
    model = PromptModel(base)
    given = model.load_prompt(soft_prompt(base, 4, MOOD), name=name)
    assert given == (name or "mood")
    assert model.predict(TEXTS[:1], prompt=given)[0].label in ("good", "bad")


def test_a_prompt_of_another_width_or_task_type_names_both_sides(loaded):
    model = PromptModel(loaded("llama"))
    narrow = soft_prompt(loaded("llama"), 4, hidden_size=16, base_model="example/narrow")
    with pytest.raises(
        IncompatiblePrompt, match=r"example/narrow \(width 16, .*example/tiny-llama \(width 32, "
    ):
        model.load_prompt(narrow, force=True)
    with pytest.raises(
        IncompatiblePrompt, match=r"tiny-t5 \(width 32, SEQ_2_SEQ_LM\).*32, CAUSAL_LM"
    ):
        model.load_prompt(soft_prompt(loaded("t5"), 4), force=True)
    assert model.prompts == ()


def test_a_prompt_of_other_weights_needs_force(loaded, tmp_path):
    other = load_base(build_base("llama", tmp_path / "other", seed=1), name="example/other")
    prompt = soft_prompt(other, 4, MOOD)
    model = PromptModel(loaded("llama"))
    both = r"made for example/other; the loaded base is example/tiny-llama: .*differ"
    with pytest.raises(IncompatiblePrompt, match=both + r".*force=True"):
        model.load_prompt(prompt)
    assert model.prompts == ()
    with pytest.warns(SoftHubWarning, match=both):
        model.load_prompt(prompt, force=True)
    assert model.predict(TEXTS[:1], prompt="mood")


def test_its_own_base_is_silent(loaded):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PromptModel(loaded("gpt2")).load_prompt(soft_prompt(loaded("gpt2"), 4, MOOD))


@pytest.fixture
def foreign(tiny_base, tmp_path):
    """An adapter that plain PEFT saved, with the vectors of `mood`."""
    base = load_base(tiny_base("llama"))
    model = get_peft_model(
        base.model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    )
    with torch.no_grad():
        vectors = soft_prompt(base, 5).vectors
        model.prompt_encoder["default"].embedding.weight.copy_(vectors)
    model.save_pretrained(tmp_path / "foreign")
    return tmp_path / "foreign"


def test_a_foreign_adapter_predicts_once_it_is_given_a_task(foreign, model_of):
    model = model_of("llama")
    with pytest.warns(SoftHubWarning, match="records no fingerprint"):
        model.load_prompt(foreign)
    with pytest.raises(TaskError, match=r"found none.*--task"):
        model.predict(TEXTS, prompt="foreign")
    mood = model.predict(TEXTS, prompt="mood")
    with pytest.warns(SoftHubWarning):
        model.load_prompt(foreign, name="with task", task=MOOD)
    assert model.predict(TEXTS, prompt="with task") == mood
    assert model.predict(TEXTS, prompt="foreign", task=MOOD) == mood


def test_without_a_task_texts_are_continued_as_they_are(foreign, model_of):
    model = model_of("llama")
    with pytest.warns(SoftHubWarning):
        model.load_prompt(foreign)
    shown = [MOOD.template.render({"text": text}) for text in TEXTS]
    found = model.generate(shown, prompt="foreign", max_new_tokens=4)
    assert found == model.generate(TEXTS, prompt="mood", max_new_tokens=4)
    with pytest.raises(TaskError, match=r"columns title, text.*task="):
        model.generate([{"title": "a", "text": "b"}], prompt="foreign")


# --- rows ---


def test_rows_may_have_more_columns(loaded):
    base = loaded("llama")
    task = replace(MOOD, template=Template("{title}: {text}\nSentiment:"))
    model = PromptModel(base)
    model.load_prompt(soft_prompt(base, 5, task), name="titled")
    rows = [{"title": "Review", "text": text, "unused": 1} for text in TEXTS]
    model.load_prompt(soft_prompt(base, 5, MOOD), name="mood")
    assert model.predict(rows, prompt="titled") == model.predict(TEXTS, prompt="mood")
    with pytest.raises(TaskError, match="title"):
        model.predict(TEXTS, prompt="titled")


def test_a_generation_task_does_not_classify(model_of):
    with pytest.raises(TaskError, match=r"found one of kind 'generation'"):
        model_of("llama").predict(TEXTS, prompt="summary")


def test_a_task_with_a_system_text_is_fed_as_a_chat(loaded):
    base = loaded("llama")
    words = {"good": "positive", "bad": "negative"}
    chat = replace(
        MOOD, system="Answer with one word.", verbalizer=type(MOOD.verbalizer).from_mapping(words)
    )
    rendered = render_chat(chat, base.tokenizer)
    model = PromptModel(base)
    plain = model.predict(TEXTS, task=replace(chat, system=None))
    expected = model.predict(TEXTS, task=rendered)
    assert model.predict(TEXTS, task=chat) == expected != plain
    model.load_prompt(soft_prompt(base, 5, rendered), name="rendered")
    model.load_prompt(soft_prompt(base, 5), task=chat, name="given")
    assert model.predict(TEXTS, prompt="given") == model.predict(TEXTS, prompt="rendered")


def test_only_the_text_is_cut_and_it_is_said(loaded):
    base = loaded("llama")
    model = PromptModel(base)
    model.load_prompt(soft_prompt(base, 5, replace(MOOD, max_length=30)), name="short")
    model.load_prompt(soft_prompt(base, 5, MOOD), name="mood")
    with pytest.warns(SoftHubWarning, match=r"1 of 2 texts .*truncated; \d+ characters") as caught:
        found = model.predict([LONG, "Good."], prompt="short")
    lost = int(re.search(r"; (\d+) characters", str(caught[0].message)).group(1))
    assert found == model.predict([LONG[: len(LONG) - lost], "Good."], prompt="mood")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(["Good."], prompt="short")


def test_room_is_kept_for_the_prompt_and_the_new_tokens(loaded):
    """512 positions: what does not fit beside 12 virtual and 20 new tokens is cut."""
    base = loaded("gpt2")
    model = PromptModel(base)
    model.load_prompt(soft_prompt(base, 12, TOPIC), name="topic")
    with pytest.warns(SoftHubWarning, match="1 of 1 texts"):
        (answer,) = model.generate(
            [LONG * 20], prompt="topic", max_new_tokens=20, min_new_tokens=20
        )
    assert answer
    with pytest.raises(TaskError, match=r"12 virtual tokens .* context of 512"):
        model.generate(["Good."], prompt="topic", max_new_tokens=512)


def test_wrong_calls_say_what_was_expected(model_of):
    model = model_of("llama")
    for call in (model.predict, model.generate):
        assert call([], prompt="mood") == []
        assert call([], prompt=[]) == []
        with pytest.raises(TaskError, match="2 prompts for 5 texts"):
            call(TEXTS, prompt=["mood", None])
        with pytest.raises(ConfigError, match="batch_size is 0"):
            call(TEXTS, prompt="mood", batch_size=0)


def test_a_first_call_under_autocast_leaves_no_keys_of_low_precision(model_of):
    fresh, model = model_of("llama"), model_of("llama")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.predict(TEXTS, prompt="mood")
    exact = fresh.predict(TEXTS, prompt="mood")
    for ours, theirs in zip(model.predict(TEXTS, prompt="mood"), exact, strict=True):
        assert_equal_in_float32(ours.scores, theirs.scores, floor=1e-6)
    assert rough != exact


def test_a_model_that_scales_embeddings_in_place_changes_no_prompt():
    from transformers import CTRLConfig, CTRLLMHeadModel

    sizes = {"n_positions": 512, "n_embd": 32, "dff": 64, "n_layer": 2, "n_head": 4}
    tokenizer = build_tokenizer()
    config = CTRLConfig(vocab_size=len(tokenizer), **sizes)
    base = load_base(CTRLLMHeadModel(config), tokenizer=tokenizer, name="example/ctrl")
    prompt = soft_prompt(base, 4, MOOD)
    expected, model = prompt.vectors.clone(), PromptModel(base)
    model.load_prompt(prompt, name="mood")
    first = model.predict(TEXTS, prompt="mood")
    assert prompt.vectors.equal(expected)
    model.load_prompt(prompt, name="again")
    for ours, theirs in zip(model.predict(TEXTS, prompt="again"), first, strict=True):
        assert_equal_in_float32(ours.scores, theirs.scores)


def test_one_text_gets_one_answer(model_of):
    """A row gets one too; a list of one text gets a list."""
    model = model_of("llama")
    (expected,) = model.predict(["Good."], prompt="mood")
    for text in ("Good.", {"text": "Good."}):
        assert model.predict(text, prompt="mood") == expected
        assert model.generate(text, prompt="mood") == model.generate([text], prompt="mood")[0]
        scores = model.target_logprobs(text, " yes", prompt="mood")
        assert [scores] == model.target_logprobs([text], [" yes"], prompt="mood")
        assert isinstance(scores, tuple)
    with pytest.raises(TaskError, match="2 prompts for 1 texts"):
        model.predict("Good.", prompt=["mood", "topic"])


def test_texts_may_come_from_anything_that_can_be_iterated(model_of):
    model = model_of("llama")
    expected = model.predict(TEXTS, prompt="mood")
    for texts in (tuple(TEXTS), (text for text in TEXTS), dict.fromkeys(TEXTS).keys()):
        assert model.predict(texts, prompt="mood") == expected
    assert model.predict(iter(TEXTS), prompt=(name for name in ["mood"] * 5)) == expected


def test_a_prediction_shows_its_label_first(model_of):
    prediction = model_of("llama").predict("Good.", prompt="mood")
    assert repr(prediction).startswith(f"Prediction(label={prediction.label!r}, confidence=")
    unsure = model_of("llama").predict("Good.", prompt="mood", abstain_below=1)
    assert repr(unsure).startswith("Prediction(label=None, ")


def test_predictions_are_plain_data(model_of):
    (prediction,) = model_of("llama").predict(["Good."], prompt="mood")
    assert json.loads(json.dumps([prediction.label, prediction.probabilities, prediction.scores]))
    assert list(prediction.scores) == ["good", "bad"]
