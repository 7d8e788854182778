"""Every option of transformers' GenerationConfig: exact in a mixed batch, or refused by name."""

import warnings
from copy import copy
from dataclasses import replace

import pytest
import torch
from transformers import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    GenerationConfig,
    WatermarkingConfig,
)
from transformers.modeling_outputs import BaseModelOutput

from softhub.errors import ConfigError
from softhub.evaluation.evaluate import evaluate
from softhub.inference.engine import PromptModel
from softhub.inference.options import EXACT, REFUSED, WITHOUT_EFFECT
from softhub.inference.processors import draw
from softhub.inference.requests import row_seed
from softhub.tasks import Example
from tests.prompts import PROMPTS, SUMMARY, TEXTS, soft_prompt

NAMES = ["mood", "summary", None, "topic", "summary"]
KINDS = ("llama", "gemma2", "t5")  # shared keys, embeddings before each row, an encoder
SEED = 7
FIELDS = sorted(name for name in vars(GenerationConfig()) if not name.startswith("_"))

# For each exact option the options of a call; "END" is a token that ends some of the texts early.
SAMPLING = {"do_sample": True, "temperature": 1.5}
ENDING = {"eos_token_id": "END", "max_new_tokens": 8}
CASES = {
    "bad_words_ids": {"bad_words_ids": [["END"], [40, 41], [300, 301, 302]]},
    "begin_suppress_tokens": {"begin_suppress_tokens": [*range(0, 400, 2)]},
    "bos_token_id": {"bos_token_id": 7},
    "decoder_start_token_id": {"decoder_start_token_id": 7},
    "do_sample": {"do_sample": True},
    "early_stopping": {**ENDING, "early_stopping": True, "num_beams": 3},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 1},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 4.0},
    "eos_token_id": ENDING,
    "epsilon_cutoff": {**SAMPLING, "epsilon_cutoff": 0.02},
    "eta_cutoff": {**SAMPLING, "eta_cutoff": 0.3},
    "exponential_decay_length_penalty": {
        **ENDING,
        "eos_token_id": 2,
        "exponential_decay_length_penalty": (2, 3.0),
    },
    "forced_bos_token_id": {"forced_bos_token_id": 60},
    "forced_eos_token_id": {"forced_eos_token_id": 60},
    "length_penalty": {**ENDING, "length_penalty": -3.0, "num_beams": 3},
    "max_new_tokens": {"max_new_tokens": 3},
    "min_length": {**ENDING, "min_length": 24},
    "min_new_tokens": {**ENDING, "min_new_tokens": 6},
    "min_p": {**SAMPLING, "min_p": 0.3},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 2, "max_new_tokens": 16},
    "num_beams": {"num_beams": 3},
    "remove_invalid_values": {"remove_invalid_values": True},
    "renormalize_logits": {"renormalize_logits": True, "num_beams": 3, "bad_words_ids": [["END"]]},
    "repetition_penalty": {"repetition_penalty": 4.0},
    "sequence_bias": {"sequence_bias": [[[40, 41], 9.0], [["END"], -9.0]]},
    "suppress_tokens": {"suppress_tokens": [*range(0, 400, 2)]},
    "temperature": {"do_sample": True, "temperature": 3.0},
    "top_h": {**SAMPLING, "top_h": 0.3},
    "top_k": {**SAMPLING, "top_k": 3},
    "top_p": {**SAMPLING, "top_p": 0.3},
    "typical_p": {**SAMPLING, "typical_p": 0.3},
    "watermarking_config": {"watermarking_config": WatermarkingConfig(bias=9.0, context_width=3)},
}
# Of these the tiny bases show nothing: they concern a decoder's start, ties, and NaN.
UNSEEN = {"bos_token_id", "remove_invalid_values", "renormalize_logits", "early_stopping"}


def test_every_option_is_either_exact_or_refused():
    """A new one of another version of transformers has to be put in one of the lists."""
    assert set(FIELDS) <= {*EXACT, *WITHOUT_EFFECT, *REFUSED}
    assert EXACT.keys() <= set(FIELDS)
    assert not EXACT.keys() & {*WITHOUT_EFFECT, *REFUSED}
    assert CASES.keys() == EXACT.keys()


# --- exact ---


def plain_ids(model, name, text):
    task = None if name is None else PROMPTS[name][0]
    return model.base.tokenizer(task.template.render({"text": text}) if task else text)["input_ids"]


@torch.no_grad()
def alone(model, text, name, **options):
    """Plain transformers on one assembled row; token ids are those of its text."""
    base, plain = model.base, model.base.model
    ids = torch.tensor([plain_ids(model, name, text)])
    inputs, shown = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids.shape[1]
    if name is not None:
        _, rows, seed = PROMPTS[name]
        vectors = soft_prompt(base, rows, seed=seed).vectors
        embedded = torch.cat([vectors[None], base.embed(ids)], dim=1)
        inputs["attention_mask"] = torch.ones(embedded.shape[:2], dtype=torch.int64)
        if base.is_encoder_decoder:
            states = plain.get_encoder()(inputs_embeds=embedded).last_hidden_state
            inputs["encoder_outputs"] = BaseModelOutput(states)
        else:
            inputs["inputs_embeds"] = embedded
            options = seen_by_a_decoder(options, ids)
    shown = 1 if base.is_encoder_decoder else shown
    tokens = plain.generate(**inputs, **{"max_new_tokens": 6, "do_sample": False, **options})
    return base.tokenizer.decode(tokens[0, shown:], skip_special_tokens=True)


def seen_by_a_decoder(options, ids):
    """For embeddings transformers drops options that read "encoder" ids, or counts otherwise."""
    options, processors = dict(options), []
    if (size := options.pop("encoder_no_repeat_ngram_size", None)) is not None:
        processors.append(EncoderNoRepeatNGramLogitsProcessor(size, ids))
    if (penalty := options.pop("encoder_repetition_penalty", None)) is not None:
        processors.append(EncoderRepetitionPenaltyLogitsProcessor(penalty, ids))
    if (least := options.pop("min_length", None)) is not None:
        options["min_new_tokens"] = max(least - ids.shape[1], 0)
    return {**options, "logits_processor": processors}


def with_end(model, options, texts=TEXTS, names=NAMES):
    """Put a token that many texts contain in the place of "END"."""
    found = model.generate(texts, prompt=names, max_new_tokens=6)
    tokens = [model.encoder.tokens(text)[1:4] for text in found]
    end = max({t for row in tokens for t in row}, key=lambda t: sum(t in row for row in tokens))

    def placed(value):
        if isinstance(value, list):
            return [placed(each) for each in value]
        return end if value == "END" else value

    return {name: placed(value) for name, value in options.items()}


@pytest.mark.parametrize("option", CASES)
def test_an_exact_option_gives_each_row_of_a_batch_what_it_gets_alone(
    option, model_of, monkeypatch
):
    differs = False
    for kind in KINDS:
        model = model_of(kind)
        options = with_end(model, CASES[option])
        found = model.generate(TEXTS, prompt=NAMES, seed=SEED, **{"max_new_tokens": 6, **options})
        for row, (text, name) in enumerate(zip(TEXTS, NAMES, strict=True)):
            generator = torch.Generator().manual_seed(row_seed(SEED, row))
            with monkeypatch.context() as patch:
                patch.setattr(
                    torch, "multinomial", lambda p, num_samples, g=generator: draw(p[0], g)[None]
                )
                assert found[row] == alone(model, text, name, **options), (kind, row)
        without = {name: value for name, value in options.items() if name != option}
        without.setdefault("max_new_tokens", 6)
        if option in ("do_sample", "num_beams"):
            without = {"max_new_tokens": 6}
        differs |= found != model.generate(TEXTS, prompt=NAMES, seed=SEED, **without)
    assert differs or option in UNSEEN


@pytest.mark.parametrize("option", ["no_repeat_ngram_size", "repetition_penalty", "sequence_bias"])
def test_a_shared_beginning_is_part_of_the_text(option, model_of):
    """Where all rows begin alike, the beginning is encoded once; processors see it anyway."""
    model, beginning = model_of("llama"), "Great value, easy to use. It broke. " * 3
    texts = [beginning + text for text in TEXTS]
    options = with_end(model, CASES[option], texts, None)
    found = model.generate(texts, **{"max_new_tokens": 6, **options})
    assert found == [alone(model, text, None, **options) for text in texts]
    assert found != model.generate(texts, max_new_tokens=6)


# --- refused ---


@pytest.mark.parametrize("option", [*WITHOUT_EFFECT, *REFUSED])
def test_what_is_not_exact_is_refused_by_name(option, model_of):
    with pytest.raises(ConfigError, match=f"option {option} is not supported: "):
        model_of("llama").generate(TEXTS, prompt=NAMES, **{option: 2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; expected a whole number of 1 or more"),
        ({"max_new_tokens": "5"}, "max_new_tokens is '5'; expected a whole number"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5; expected a whole number"),
        ({"max_new_tokens": True}, "max_new_tokens is True; expected a whole number"),
        ({"num_beams": "3"}, "num_beams is '3'; expected a whole number"),
        ({"top_k": -1, "do_sample": True}, "top_k is -1; expected a whole number of 0 or more"),
        ({"do_sample": "yes"}, "do_sample is 'yes'; expected True or False"),
        ({"temperature": "hot", "do_sample": True}, "temperature is 'hot'; expected a number"),
        ({"temperature": 0, "do_sample": True}, "transformers rejects .*temperature"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty is nan; expected a number"),
        ({"bad_words_ids": "no"}, "transformers rejects .*bad_words_ids"),
        ({"bad_words_ids": [[10**6]]}, "transformers rejects"),
        ({"exponential_decay_length_penalty": 3}, "transformers rejects"),
        ({"eos_token_id": "end"}, "transformers rejects"),
        ({"early_stopping": "soon", "num_beams": 2}, "transformers rejects .*early_stopping"),
        ({"generation_config": {"num_beams": 2}}, "expected a transformers.GenerationConfig"),
        ({"max_tokens": 5}, "Unknown generation option 'max_tokens'; did you mean '.*'[?]$"),
        ({"temperature": 0.7}, "temperature has no effect without do_sample=True"),
        ({"length_penalty": 2.0}, "length_penalty has no effect without num_beams=2 or more"),
        ({"do_sample": True, "num_beams": 2}, "num_beams=2 is not supported.*such as temperature"),
        ({"seed": "lucky", "do_sample": True}, "seed is 'lucky'; expected a whole number"),
    ],
)
def test_wrong_values_are_refused_in_one_sentence(options, message, model_of):
    with pytest.raises(ConfigError, match=message) as caught:
        model_of("llama").generate(TEXTS, prompt=NAMES, **options)
    assert "\n" not in str(caught.value)


def test_none_means_that_an_option_was_not_given(model_of):
    model = model_of("llama")
    found = model.generate(TEXTS, prompt="summary", max_new_tokens=None, num_beams=None)
    assert found == model.generate(TEXTS, prompt="summary")


# --- where options come from ---


def configured(model, **options):
    """The same model with another generation config of its own."""
    view = replace(model.base, model=copy(model.base.model))
    view.model.generation_config = GenerationConfig(**options)
    other = PromptModel(view)
    for name, (task, rows, seed) in PROMPTS.items():
        other.load_prompt(soft_prompt(view, rows, task, seed=seed), name=name)
    return other


def test_a_generation_config_is_used_below_explicit_options(model_of):
    model = model_of("llama")
    config = GenerationConfig(num_beams=3, max_new_tokens=5)
    expected = model.generate(TEXTS, prompt=NAMES, num_beams=3, max_new_tokens=5)
    assert model.generate(TEXTS, prompt=NAMES, generation_config=config) == expected
    longer = model.generate(TEXTS, prompt=NAMES, num_beams=3, max_new_tokens=9)
    options = {"generation_config": config, "max_new_tokens": 9}
    assert model.generate(TEXTS, prompt=NAMES, **options) == longer != expected
    with pytest.raises(ConfigError, match="output_scores is not supported"):
        model.generate(TEXTS, generation_config=GenerationConfig(output_scores=True))


def test_a_base_that_samples_by_default_does_not_do_so_unasked(model_of):
    """As Llama 3 and Qwen2.5-Instruct; asked to, it uses its own temperature."""
    model = model_of("llama")
    own = {"do_sample": True, "temperature": 3.0, "top_p": 0.9, "return_dict_in_generate": True}
    sampling = configured(model, **own)
    greedy = model.generate(TEXTS, prompt=NAMES, max_new_tokens=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sampling.generate(TEXTS, prompt=NAMES, max_new_tokens=6) == greedy
    examples = [Example({"text": text}, target="Yes.") for text in TEXTS]
    first, second = (evaluate(sampling, SUMMARY, examples, prompt="summary") for _ in range(2))
    assert first.predictions == second.predictions
    assert list(first.predictions) == model.generate(TEXTS, prompt="summary")
    asked = sampling.generate(TEXTS, prompt=NAMES, max_new_tokens=6, do_sample=True, seed=1)
    options = {"do_sample": True, "temperature": 3.0, "top_p": 0.9, "seed": 1}
    assert asked == model.generate(TEXTS, prompt=NAMES, max_new_tokens=6, **options) != greedy


def test_a_base_s_own_options_apply_if_they_are_exact(model_of):
    model = model_of("t5")
    own = {"num_beams": 2, "no_repeat_ngram_size": 2, "decoder_start_token_id": 0}
    expected = model.generate(TEXTS, prompt=NAMES, max_new_tokens=9, **own)
    found = configured(model, **own, max_length=3, cache_implementation="static")
    assert found.generate(TEXTS, prompt=NAMES, max_new_tokens=9) == expected
    with pytest.raises(ConfigError, match=r"The base's own generation config sets guidance_scale"):
        configured(model, guidance_scale=2.0).generate(TEXTS, max_new_tokens=9)


def test_a_task_that_samples_can_be_asked_not_to(model_of):
    model = model_of("llama")
    options = {"max_new_tokens": 6, "do_sample": True, "temperature": 2.0}
    task = replace(SUMMARY, name="sampled", generation=options)
    model.load_prompt(soft_prompt(model.base, 9, task, seed=2), name="sampled")
    greedy = model.generate(TEXTS, prompt="sampled", do_sample=False)
    assert greedy == model.generate(TEXTS, prompt="summary")
    assert model.generate(TEXTS, prompt="sampled", seed=3) != greedy


# --- seeds ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_makes_each_row_reproducible_whatever_its_batch(kind, model_of):
    model = model_of(kind)
    options = {"do_sample": True, "temperature": 1.5, "max_new_tokens": 8}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    found = model.generate(TEXTS, prompt=NAMES, seed=3, **options)
    assert torch.equal(torch.get_rng_state(), before)
    for batch_size in (1, 2):
        again = model.generate(TEXTS, prompt=NAMES, seed=3, batch_size=batch_size, **options)
        assert again == found
    others = ["Something else entirely, and longer than before.", *TEXTS[1:3]]
    assert model.generate(others, prompt=NAMES[:3], seed=3, **options)[1:] == found[1:3]
    assert model.generate(TEXTS[0], prompt=NAMES[0], seed=3, **options) == found[0]
    assert model.generate(TEXTS, prompt=NAMES, seed=4, **options) != found
    repeated = model.generate([TEXTS[0]] * 8, prompt="summary", seed=3, **options)
    assert len(set(repeated)) > 1


def test_without_a_seed_the_global_generator_gives_one(model_of):
    model = model_of("llama")
    options = {"do_sample": True, "max_new_tokens": 8, "prompt": NAMES}
    torch.manual_seed(5)
    first, second = model.generate(TEXTS, **options), model.generate(TEXTS, **options)
    torch.manual_seed(5)
    assert model.generate(TEXTS, batch_size=2, **options) == first != second


def test_tokens_are_drawn_as_often_as_they_are_probable():
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([draw(probabilities, generator) for _ in range(4000)])
    shares = torch.bincount(drawn, minlength=6) / 4000
    assert shares[probabilities == 0].sum() == 0
    assert (shares - probabilities).abs().max() < 0.03  # four standard deviations
