"""Prompt and texts in one packed row against plain PEFT, row by row."""

import sys
import threading

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from softhub.model.assembly import pad_rows
from softhub.model.device_settings import DEVICE_SETTINGS, DeviceSettings
from softhub.model.loading import load_base
from softhub.model.packing import SharedPrompt, longest_packed
from softhub.model.scoring import encode_rows, label_scores, target_logprobs
from softhub.training.module import PromptTuningModule
from tests.model.test_scoring import CANDIDATES, SINGLE, TEXTS, expected_scores
from tests.references import assert_equal_in_float32, sequence_logprob, with_peft
from tests.tiny import HIDDEN_SIZE, SLIDING_WINDOW, build_tokenizer, llama_like

PACKING = ["llama", "qwen2", "qwen3", "gpt2", "opt"]
TARGETS = [(80, 81), (82,), (83, 84, 85, 86), (87, 88, 89)]


@pytest.fixture(params=[1, 6], ids="P={}".format)
def vectors(request):
    torch.manual_seed(3)
    return torch.randn(request.param, HIDDEN_SIZE)


@pytest.fixture(scope="module")
def gemma3(tmp_path_factory):
    """Windows in one of its two layers, another base of positions in the other."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    layers = ["sliding_attention", "full_attention"]
    config = Gemma3TextConfig(
        **llama_like(sliding_window=SLIDING_WINDOW, layer_types=layers, query_pre_attn_scalar=8)
    )
    folder = tmp_path_factory.mktemp("gemma3")
    torch.manual_seed(0)
    Gemma3ForCausalLM(config).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", PACKING)
def test_plain_decoders_pack_any_row(kind, tiny_base):
    assert longest_packed(load_base(tiny_base(kind))) == sys.maxsize


def test_encoders_do_not(tiny_base):
    assert longest_packed(load_base(tiny_base("t5"))) == 0


def test_neither_do_other_attention_functions(tiny_base):
    base = load_base(tiny_base("llama"))
    base.model.set_attn_implementation("eager")
    assert longest_packed(base) == 0


def test_neither_does_a_model_whose_positions_meet_elsewhere(tiny_base):
    base = load_base(tiny_base("llama"))
    mlp = base.model.model.layers[0].mlp
    mlp.register_forward_hook(lambda _, inputs, output: output + output.roll(1, dims=1))
    assert longest_packed(base) == 0


@pytest.mark.parametrize("kind", ["mistral", "gemma3"])
def test_windows_pack_rows_that_they_see_whole(kind, tiny_base, gemma3):
    folder = gemma3 if kind == "gemma3" else tiny_base(kind)
    base, texts = load_base(folder), [(20, 31, 42), (33,), (50, 51)]
    assert longest_packed(base) == SLIDING_WINDOW
    vectors = torch.randn(3, HIDDEN_SIZE, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        encoded = encode_rows(base, [SharedPrompt(vectors)] * 3, pad_rows(texts), keep_cache=True)
        found = label_scores(base, encoded, CANDIDATES)  # which takes the row to the window's end
    model = with_peft(folder, vectors)
    for text, scores in zip(texts, found, strict=True):
        words = [sequence_logprob(model, text, answer) for answer in CANDIDATES.sequences]
        expected = [words[0], words[1], torch.tensor(words[2:]).logsumexp(0)]
        assert_equal_in_float32(scores, expected)


@pytest.mark.parametrize("tokens, at_once", [(3, 1), (4, 2)])
def test_training_packs_no_row_beyond_the_window(tokens, at_once, tiny_base):
    base, fed = load_base(tiny_base("mistral")), []
    tuner = PromptTuningModule(base, torch.randn(tokens, HIDDEN_SIZE), CANDIDATES)
    for width in (0, SLIDING_WINDOW + 1):
        base.capabilities.batching(width)  # asking runs the layers too
    base.model.model.layers[0].register_forward_pre_hook(
        lambda _, inputs: fed.append(inputs[0].shape[0])
    )
    rows = pad_rows([(20, 31, 42), (33,)])
    tuner(rows.ids, rows.mask, torch.tensor([0, 1]))
    assert fed[0] == at_once


@pytest.mark.parametrize("candidates", [SINGLE, CANDIDATES], ids=["one-token", "many-tokens"])
@pytest.mark.parametrize("kind", PACKING)
def test_label_scores_equal_each_row_alone(kind, candidates, tiny_base, vectors):
    folder = tiny_base(kind)
    base, prompts = load_base(folder), [SharedPrompt(vectors)] * len(TEXTS)
    expected = expected_scores(folder, [vectors] * len(TEXTS), candidates)
    with torch.no_grad():
        encoded = encode_rows(base, prompts, pad_rows(TEXTS), keep_cache=True)
        found = label_scores(base, encoded, candidates)
        part = label_scores(base, encoded.select([2, 0]), candidates)
        again = encode_rows(base, prompts, pad_rows(TEXTS), keep_cache=False)
        without_cache = label_scores(base, again, candidates)
    for scores, rows in ((found, slice(None)), (part, [2, 0]), (without_cache, slice(None))):
        assert_equal_in_float32(scores, expected[rows])


@pytest.mark.parametrize("in_pieces", [True, False])
@pytest.mark.parametrize("kind", PACKING)
def test_target_logprobs_equal_teacher_forcing_alone(
    kind, in_pieces, tiny_base, vectors, monkeypatch
):
    monkeypatch.setattr("softhub.model.scoring._projects_in_pieces", lambda base: in_pieces)
    folder = tiny_base(kind)
    base, targets = load_base(folder), pad_rows(TARGETS, side="right")
    texts = [*TEXTS[:3], ()]  # a text may be empty: the prompt's end foretells its first token
    model = with_peft(folder, vectors)
    expected = [
        sequence_logprob(model, text, target) for text, target in zip(texts, TARGETS, strict=True)
    ]
    with torch.no_grad():
        found = target_logprobs(
            base, [SharedPrompt(vectors)] * len(texts), pad_rows(texts), targets
        )
    assert_equal_in_float32(found.sum(-1), expected)


@pytest.mark.parametrize("in_groups", [True, False])
@pytest.mark.parametrize("kind", PACKING)
def test_gradients_equal_those_through_rows(kind, in_groups, tiny_base, vectors, monkeypatch):
    settings = DeviceSettings(attends_in_groups=in_groups)
    monkeypatch.setitem(DEVICE_SETTINGS, "cpu", settings)
    base, gradients = load_base(tiny_base(kind)), []
    targets = pad_rows(TARGETS, side="right")
    for form in (SharedPrompt, lambda vectors: vectors):
        prompt = vectors.clone().requires_grad_()
        prompts = [form(prompt)] * len(TEXTS)
        encoded = encode_rows(base, prompts, pad_rows(TEXTS), keep_cache=True)
        scores = label_scores(base, encoded, CANDIDATES).sum()
        (scores + target_logprobs(base, prompts, pad_rows(TEXTS), targets).sum()).backward()
        gradients.append(prompt.grad)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
    assert all(parameter.grad is None for parameter in base.model.parameters())


def test_checkpointed_layers_run_again_as_they_ran(tiny_base, vectors):
    gradients, fed = [], []
    rows, labels = pad_rows(TEXTS), torch.tensor([0, 1, 0, 1])
    for checkpointed in (False, True):
        base = load_base(tiny_base("llama"))
        tuner = PromptTuningModule(base, vectors, SINGLE).train()
        if checkpointed:
            tuner.activation_checkpointing_enable()
            tuner.train()
            base.model.model.layers[1].self_attn.q_proj.register_forward_pre_hook(
                lambda _, inputs: fed.append(inputs[0].shape[0])
            )
        with tuner.packed_attention():
            tuner(rows.ids, rows.mask, labels)["loss"].backward()
        gradients.append(tuner.prompt.grad)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
    assert fed == [1, 1]  # the second time in the backward pass


def test_half_precision_packs_as_it_answers(tiny_base, vectors):
    base = load_base(tiny_base("llama"), dtype="bfloat16")
    assert longest_packed(base)
    rows, alike = pad_rows(TEXTS), []
    for prompt in (SharedPrompt(vectors), vectors):
        encoded = encode_rows(base, [prompt] * len(TEXTS), rows, keep_cache=False)
        alike.append(label_scores(base, encoded, SINGLE))
    torch.testing.assert_close(*alike, atol=0.2, rtol=0.02)


def test_all_layers_keep_one_mask(tiny_base, vectors, monkeypatch):
    base, met = load_base(tiny_base("llama")), []
    plain = sdpa_attention_forward

    def attend(module, query, key, value, mask, **options):
        met.append(mask)
        return plain(module, query, key, value, mask, **options)

    monkeypatch.setattr("softhub.model.packing.sdpa_attention_forward", attend)
    encode_rows(base, [SharedPrompt(vectors)] * len(TEXTS), pad_rows(TEXTS), keep_cache=False)
    first, second = met[1::2]  # of the texts; a prompt has none
    assert met[0::2] == [None, None]
    assert first is second


def test_no_pad_is_computed(tiny_base, vectors):
    base, fed = load_base(tiny_base("llama")), []
    assert longest_packed(base)  # asking runs the layers too
    base.model.model.layers[0].register_forward_pre_hook(
        lambda _, inputs: fed.append(tuple(inputs[0].shape[:2]))
    )
    encode_rows(base, [SharedPrompt(vectors)] * len(TEXTS), pad_rows(TEXTS), keep_cache=False)
    assert fed == [(1, len(vectors) + sum(map(len, TEXTS)))]


def test_other_threads_and_what_comes_after_see_the_model_as_it_was(tiny_base, vectors):
    folder = tiny_base("llama")
    base, plain = load_base(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    ids, rows = torch.tensor([[20, 31, 42], [50, 51, 52]]), pad_rows(TEXTS)
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    expected, found = plain(ids, attention_mask=mask).logits, []

    def ask(*_):
        def run():
            found.append(base.model(ids, attention_mask=mask).logits)

        thread = threading.Thread(target=run)
        handle.remove()  # the thread's own pass goes through the layer too
        thread.start()
        thread.join()

    handle = base.model.model.layers[0].register_forward_pre_hook(ask)
    encode_rows(base, [SharedPrompt(vectors)] * len(TEXTS), rows, keep_cache=False)
    found.append(base.model(ids, attention_mask=mask).logits)
    assert base.model.config._attn_implementation == "sdpa"
    assert len(found) == 2
    for logits in found:
        assert_equal_in_float32(logits[mask.bool()], expected[mask.bool()], floor=1e-5)


def test_a_pass_that_fails_leaves_the_model_as_it_was(tiny_base, vectors):
    base = load_base(tiny_base("llama"))

    def fail(*_):
        raise KeyboardInterrupt

    base.model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        encode_rows(base, [SharedPrompt(vectors)] * len(TEXTS), pad_rows(TEXTS), keep_cache=False)
    assert base.model.config._attn_implementation == "sdpa"
