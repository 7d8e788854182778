"""Wrong arguments of `PromptModel`: one sentence of softhub's, never an error of a library's."""

import math

import pytest

from softhub.errors import ConfigError, InvalidAdapter, SoftHubError, TaskError
from softhub.evaluation.evaluate import evaluate
from softhub.inference.engine import PromptModel
from softhub.inference.ensemble import predict_ensemble
from tests.prompts import MOOD, TEXTS, soft_prompt

CHAT = [{"role": "user", "content": "Hello."}]
LONE = "Good \ud83d phone."


def predict(model, texts):
    return model.predict(texts, prompt="mood")


def generate(model, texts):
    return model.generate(texts, prompt="summary", max_new_tokens=2)


def score(model, texts):
    return model.target_logprobs(texts, [" yes"], prompt="summary")


def vote(model, texts):
    return predict_ensemble(model, texts, prompts=["mood"])


def continue_plainly(model, texts):
    return model.generate(texts, max_new_tokens=2)


@pytest.mark.parametrize("call", [predict, generate, score, vote, continue_plainly])
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, r"texts is None; expected a list of texts \(str\) or rows"),
        (5, "texts is 5; expected a list of texts"),
        (math.nan, "texts is nan; expected a list of texts"),
        (b"Good.", "texts is b'Good.'; expected a list of texts"),
        ([None], r"texts has None \(NoneType\) in place 1 of 1; expected texts"),
        ([math.nan], r"texts has nan \(float\) in place 1 of 1"),
        (["Good.", 5], r"texts has 5 \(int\) in place 2 of 2"),
        (CHAT, "content"),
        ([{"text": None}], "text"),
        ([{"text": math.nan}], "text"),
        ([{"text": CHAT}], "text"),
        (LONE, r"contains '\\ud83d' \(character \d+\), half of a surrogate pair"),
    ],
)
def test_what_is_no_text_is_refused_in_one_sentence(call, texts, message, model_of):
    texts = [texts] if isinstance(texts, str) else texts
    with pytest.raises(TaskError, match=message) as caught:
        call(model_of("llama"), texts)
    assert "\n" not in str(caught.value).replace("\\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": 5}, "prompt is 5; expected a list of names of prompts"),
        ({"prompt": ["mood", 5, None, None, None]}, r"prompt has 5 \(int\) in place 2 of 5"),
        ({"prompt": [["mood"]] * 5}, r"prompt has \['mood'\] \(list\) in place 1 of 5"),
        ({"prompt": "mood", "batch_size": "4"}, "batch_size is '4'; expected a whole number"),
        ({"prompt": "mood", "batch_size": 2.5}, "batch_size is 2.5; expected a whole number"),
    ],
)
def test_other_arguments_are_checked_too(arguments, message, model_of):
    model = model_of("llama")
    for call in (model.predict, model.generate):
        with pytest.raises(SoftHubError, match=message):
            call(TEXTS, **arguments)


def test_targets_thresholds_and_adapters_are_checked_too(model_of):
    model = model_of("llama")
    with pytest.raises(TaskError, match=r"targets has None \(NoneType\) in place 1 of 1"):
        model.target_logprobs(TEXTS[:1], [None], prompt="summary")
    with pytest.raises(TaskError, match="Found a single target for a list of 5 texts"):
        model.target_logprobs(TEXTS, " yes!", prompt="summary")
    with pytest.raises(ConfigError, match="abstain_below is 'high'; expected a number"):
        model.predict(TEXTS, prompt="mood", abstain_below="high")
    with pytest.raises(TaskError, match="Found 'mood'; an ensemble requires a list"):
        predict_ensemble(model, TEXTS, prompts="mood")
    with pytest.raises(InvalidAdapter, match="source is 5; expected an adapter folder"):
        model.load_prompt(5)


def test_a_loaded_prompt_is_a_copy(loaded):
    """Some models (CTRL) scale the embeddings that they are given in place."""
    from softhub.inference.engine import PromptModel

    model, prompt = PromptModel(loaded("llama")), soft_prompt(loaded("llama"), 4, MOOD)
    expected = prompt.vectors.clone()
    model.load_prompt(prompt, name="mood")
    before = model.predict(TEXTS, prompt="mood")
    prompt.vectors.mul_(2)
    model.load_prompt(soft_prompt(loaded("llama"), 4, MOOD), name="again")
    assert model.predict(TEXTS, prompt="again") == before == model.predict(TEXTS, prompt="mood")
    assert not prompt.vectors.equal(expected)


def test_on_the_command_line_it_is_one_line(softhub, recipe, loaded, tiny_base, tmp_path):
    folder = soft_prompt(loaded("llama"), 4, MOOD).save_pretrained(tmp_path / "mood")
    done = softhub("predict", folder, LONE, "--base", tiny_base("llama"))
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[-1].startswith(r"error: A text contains '\ud83d'")
    assert "Traceback" not in done.err
    arguments = ["--task", "task.yaml", "--base-model", str(tiny_base("llama"))]
    done = recipe("classification", *arguments, "--label-smoothing-factor", "0.1")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[-1].startswith(
        "error: The training argument label_smoothing_factor"
    )


def test_arguments_in_another_form_are_refused_with_what_to_do(model_of, loaded):
    model, base = model_of("llama"), loaded("llama")
    wrong = {
        "base is of type str; expected BaseModel.*PromptModel.from_pretrained": (
            lambda: PromptModel("base-llama")
        ),
        "peft_model is of type LlamaForCausalLM; expected PeftModel": (
            lambda: PromptModel.from_peft(base.model, base.tokenizer)
        ),
        "name is of type int; expected str": (
            lambda: model.load_prompt(soft_prompt(base, 3, MOOD), name=5)
        ),
        "model is of type BaseModel; expected PromptModel": (
            lambda: evaluate(base, MOOD, [{"text": "Good.", "label": "good"}])
        ),
    }
    for message, call in wrong.items():
        with pytest.raises(ConfigError, match=message):
            call()
    assert set(model.prompts) == {"mood", "topic", "summary"}
