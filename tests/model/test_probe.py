"""Families whose batches, embeddings or caches are not what they look like: right or refused.

Each row of a mixed batch is compared with plain transformers for that row alone.
"""

import functools
import math
import sys

import pytest
import torch

from softhub.errors import BaseModelError, TaskError
from softhub.inference.engine import PromptModel
from softhub.model.assembly import pad_rows
from softhub.model.config_lengths import position_limit
from softhub.model.kv_cache import encode_prefix, shares_prefixes
from softhub.model.loading import load_base
from softhub.model.packing import longest_packed
from softhub.model.scoring import encode_rows, label_scores, target_logprobs
from softhub.tasks import Task
from softhub.training.module import PromptTuningModule
from tests.families import BUILDERS, WINDOW, family_base
from tests.model.test_scoring import CANDIDATES
from tests.prompts import soft_prompt
from tests.references import assert_equal_in_float32
from tests.tiny import HIDDEN_SIZE, build_base

# Shorter and longer than windows; rows 1 and 4 have prompts of other lengths, row 3 grows beyond.
LENGTHS = (2, 5, WINDOW + 9, WINDOW - 1, WINDOW + 4, WINDOW + 13)
VIRTUAL = (None, 3, None, None, 7, 3)
TARGETS = [(80, 81), (82,), (83, 84, 85, 86), (87, 88, 89), (90, 91), (92,)]
BARE_ONLY, LIMITED = ("gemma3n",), ("axk2",)
REFUSED = ("xlnet", "prophetnet", "camembert", "bert_generation")
EXACT = [kind for kind in BUILDERS if kind not in (*BARE_ONLY, *LIMITED, *REFUSED)]


@pytest.fixture(scope="module")
def base_of():
    return functools.cache(family_base)


@pytest.fixture(scope="module")
def texts():
    drawn = torch.Generator().manual_seed(5)
    return [torch.randint(10, 390, (length,), generator=drawn).tolist() for length in LENGTHS]


@pytest.fixture(scope="module")
def vectors():
    drawn = torch.Generator().manual_seed(6)
    return [P and torch.randn(P, HIDDEN_SIZE, generator=drawn) for P in VIRTUAL]


def inputs_alone(base, text, prompt, more=()):
    """What a row is to plain transformers, with tokens behind it."""
    if base.is_encoder_decoder:
        ids, options = torch.tensor([text]), {"decoder_input_ids": torch.tensor([[0, *more]])}
    else:
        ids, options = torch.tensor([[*text, *more]]), {}
    if prompt is None:
        return {"input_ids": ids, **options}
    embedded = base.model.get_input_embeddings()(ids)[0]
    embedded = embedded * getattr(base.model.get_encoder(), "embed_scale", 1.0)
    return {"inputs_embeds": torch.cat([prompt, embedded]).unsqueeze(0), **options}


@torch.no_grad()
def logits_alone(base, text, prompt, more=()):
    inputs = inputs_alone(base, text, prompt, more)
    width = inputs["input_ids" if prompt is None else "inputs_embeds"].shape[1]
    mask = torch.ones(1, width, dtype=torch.int64)
    return base.model(**inputs, attention_mask=mask, use_cache=False).logits[0]


def logprob_alone(base, text, prompt, answer):
    logits = logits_alone(base, text, prompt, answer[:-1])[-len(answer) :].log_softmax(-1)
    return sum(row[token].item() for row, token in zip(logits, answer, strict=True))


def scores_alone(base, text, prompt):
    words = [logprob_alone(base, text, prompt, answer) for answer in CANDIDATES.sequences]
    owned = [
        [word for word, owner in zip(words, CANDIDATES.owners, strict=True) if owner == label]
        for label in range(len(CANDIDATES.labels))
    ]
    return [torch.tensor(each).logsumexp(0).item() for each in owned]


def greedy_alone(base, text, prompt, count):
    """Greedy tokens of a row alone, up to the end or a near tie."""
    found = []
    for _ in range(count):
        best = logits_alone(base, text, prompt, found)[-1].topk(2)
        if best.values[0] - best.values[1] < 1e-3:
            break
        found.append(int(best.indices[0]))
        if found[-1] == 1:
            break
    return found


@pytest.mark.parametrize("kind", EXACT)
def test_label_scores_of_a_mixed_batch(kind, base_of, texts, vectors):
    base = base_of(kind)
    expected = [scores_alone(base, *row) for row in zip(texts, vectors, strict=True)]
    with torch.no_grad():
        encoded = encode_rows(base, vectors, pad_rows(texts), keep_cache=True)
        scores = label_scores(base, encoded, CANDIDATES)
        part = label_scores(base, encoded.select([4, 0]), CANDIDATES)
    assert_equal_in_float32(scores, expected)
    assert_equal_in_float32(part, [expected[4], expected[0]])


@pytest.mark.parametrize("kind", EXACT)
def test_target_logprobs_of_a_mixed_batch(kind, base_of, texts, vectors):
    base = base_of(kind)
    rows = zip(texts, vectors, TARGETS, strict=True)
    expected = [logprob_alone(base, text, prompt, target) for text, prompt, target in rows]
    with torch.no_grad():
        found = target_logprobs(base, vectors, pad_rows(texts), pad_rows(TARGETS, side="right"))
    assert_equal_in_float32(found.sum(-1), expected)


@pytest.mark.parametrize("kind", ["gpt_neo", "mpt", "phi3", "pegasus", "rwkv", "jamba"])
def test_gradient_of_a_step(kind, base_of, texts, vectors):
    base, start = base_of(kind), vectors[1].clone().requires_grad_()
    module = PromptTuningModule(base, start, CANDIDATES)
    labels, padded = torch.tensor([1, 0, 1, 0, 1, 0]), pad_rows(texts)
    with module.packed_attention():
        module(padded.ids, padded.mask, labels)["loss"].backward()
    expected = []
    for text, label in zip(texts, labels.tolist(), strict=True):
        words = []
        for answer in CANDIDATES.sequences:
            inputs = inputs_alone(base, text, start, answer[:-1])
            mask = torch.ones(inputs["inputs_embeds"].shape[:2], dtype=torch.int64)
            logits = base.model(**inputs, attention_mask=mask, use_cache=False).logits[0]
            along = logits[-len(answer) :].log_softmax(-1)
            words.append(along[torch.arange(len(answer)), torch.tensor(answer)].sum())
        owners = torch.tensor(CANDIDATES.owners)
        scores = torch.stack(
            [torch.stack(words)[owners == each].logsumexp(0) for each in range(max(owners) + 1)]
        )
        expected.append(-scores.log_softmax(0)[label])
    torch.stack(expected).mean().backward()
    assert torch.allclose(module.prompt.grad, start.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", EXACT)
def test_texts_of_a_mixed_batch(kind, base_of, texts, vectors):
    base = base_of(kind)
    model, names = PromptModel(base), []
    for row, prompt in enumerate(vectors):
        names.append(None if prompt is None else f"p{row}")
        if prompt is not None:
            made = soft_prompt(base, len(prompt))
            object.__setattr__(made, "vectors", prompt)
            model.load_prompt(made, name=f"p{row}")
    words = [base.tokenizer.decode(text) for text in texts]
    ids = [list(model.encoder.encode_plain(text).ids) for text in words]
    for some in (names, [None] * len(names)):
        try:
            found = model.generate(words, prompt=some, max_new_tokens=6, do_sample=False)
        except BaseModelError as refused:
            assert kind in ("bamba", "phi3"), refused
            assert any(some)
            continue
        for text, name, prompt, answer in zip(ids, some, vectors, found, strict=True):
            expected = greedy_alone(base, text, name and prompt, 6)
            said = base.tokenizer.decode(expected, skip_special_tokens=True)
            assert answer.startswith(said), (len(text), name)


def greedy_own(base, text, count):
    """Greedy tokens of the model's own `generate` for a row alone, up to a near tie."""
    ids = torch.tensor([text])
    wanted = {"output_logits": True, "return_dict_in_generate": True}
    output = base.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, **wanted
    )
    best = torch.stack(output.logits, dim=1)[0].topk(2).values  # [count, 2]
    close = (best[:, 0] - best[:, 1] < 1e-3).tolist()
    found = output.sequences[0, -len(close) :].tolist()
    return found[: close.index(True)] if any(close) else found


@pytest.mark.parametrize("kind", [*BARE_ONLY, *LIMITED, *REFUSED, "ctrl", "gpt_neo", "marian"])
def test_bare_texts_are_those_of_the_models_own_generate(kind, base_of, texts):
    base = base_of(kind)
    words = [base.tokenizer.decode(text) for text in texts]
    model = PromptModel(base)
    found = model.generate(words, max_new_tokens=6, do_sample=False)
    for word, answer in zip(words, found, strict=True):
        expected = greedy_own(base, list(model.encoder.encode_plain(word).ids), 6)
        assert answer.startswith(base.tokenizer.decode(expected, skip_special_tokens=True))


@pytest.mark.parametrize("kind", BARE_ONLY)
def test_prompts_are_refused_where_layers_look_up_the_ids(kind, base_of, texts, vectors):
    base = base_of(kind)
    with pytest.raises(BaseModelError, match="for embeddings than for the same token ids"):
        PromptModel(base).load_prompt(soft_prompt(base, 3), name="one")
    with pytest.raises(BaseModelError, match="for embeddings than for the same token ids"):
        PromptTuningModule(base, vectors[1], CANDIDATES)
    with pytest.raises(BaseModelError, match="for embeddings than for the same token ids"):
        encode_rows(base, vectors, pad_rows(texts), keep_cache=False)
    with torch.no_grad():
        encoded = encode_rows(base, [None] * len(texts), pad_rows(texts), keep_cache=True)
        scores = label_scores(base, encoded, CANDIDATES)
    assert_equal_in_float32(scores, [scores_alone(base, text, None) for text in texts])


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_exact_in_no_way_is_refused(kind, base_of, texts):
    rows = [None] * len(texts), pad_rows(texts)
    with pytest.raises(BaseModelError, match="cannot score texts exactly"):
        encode_rows(base_of(kind), *rows, keep_cache=False)


# --- what each family answered --------------------------------------------------------------------


def test_windows_by_index_share_keys_only_within_the_window(base_of):
    base = base_of("gpt_neo")
    assert base.capabilities.windows == (WINDOW,)
    assert shares_prefixes(base, WINDOW)
    assert not shares_prefixes(base, WINDOW + 1)


def test_biases_by_index_never_share_keys(base_of):
    assert not shares_prefixes(base_of("mpt"))


@pytest.mark.parametrize("kind", ["pegasus", "marian"])
def test_scale_that_an_encoder_applies_to_ids_only(kind, base_of):
    base = base_of(kind)
    assert base.capabilities.embedding_scale == pytest.approx(math.sqrt(HIDDEN_SIZE))
    ids = torch.tensor([20, 31])
    raw = base.model.get_input_embeddings()(ids)
    assert torch.equal(base.embed(ids), raw * base.model.get_encoder().embed_scale)


def test_rows_beyond_a_switch_of_rotary_factors_run_by_length(base_of):
    base = base_of("phi3")
    assert base.capabilities.batching(WINDOW) == "padded"
    assert base.capabilities.batching(WINDOW + 1) == "equal"
    assert longest_packed(base) == WINDOW


def test_a_choice_among_keys_is_asked_about_beyond_their_number(base_of):
    base = base_of("axk2")
    assert base.capabilities.windows == (WINDOW,)
    assert base.capabilities.batching(WINDOW) == "padded"
    assert longest_packed(base) in (0, WINDOW)
    with pytest.raises(
        BaseModelError, match=f"cannot score texts exactly for rows of more than {WINDOW}"
    ):
        base.capabilities.batching(WINDOW + 1)


def test_a_word_that_depends_on_the_length_of_others_is_refused(base_of):
    """ProphetNet's decoder has other attention for the same tokens before a pad."""
    with pytest.raises(BaseModelError, match="log-probabilities differ"):
        base_of("prophetnet").capabilities.batching(0)


@pytest.mark.parametrize("scored", [True, False])
def test_a_base_that_scales_its_input_in_place_changes_no_prompt(scored, base_of, texts, vectors):
    base, before = base_of("ctrl"), vectors[1].clone()
    with torch.no_grad():
        if scored:
            encode_rows(base, [vectors[1]] * len(texts), pad_rows(texts), keep_cache=False)
        else:
            encode_prefix(base, vectors[1])
    assert torch.equal(vectors[1], before)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_an_ordinary_base_shares_packs_and_continues(kind, tmp_path):
    base, passes = load_base(build_base(kind, tmp_path)), []
    base.model.get_decoder().register_forward_hook(lambda *_: passes.append(1))
    answers = base.capabilities.rows(0)
    assert (answers.batching, answers.shares_keys, answers.continues) == ("padded", True, True)
    assert not answers.reasons
    assert len(passes) == 8
    assert longest_packed(base) == sys.maxsize
    texts = base.capabilities.texts(0, 0, prompted=True)
    assert (texts.batching, texts.from_cache) == ("padded", True)
    count = len(passes)
    base.capabilities.texts(100, 900, prompted=True)
    assert base.capabilities.rows(900) is answers
    assert len(passes) == count <= 12


def test_a_base_is_asked_once():
    base, passes = family_base("gpt_neo"), []
    base.model.register_forward_hook(lambda *_: passes.append(1))
    base.capabilities.batching(0)
    count = len(passes)
    assert count <= 8
    base.capabilities.batching(WINDOW)
    shares_prefixes(base)
    assert len(passes) == count
    base.capabilities.batching(WINDOW + 1)
    assert len(passes) > count


def test_out_of_memory_is_no_answer(monkeypatch):
    base = family_base("gpt_neo")

    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(base.model.transformer, "forward", fail)
    with pytest.raises(torch.OutOfMemoryError):
        base.capabilities.rows(0)


# --- limits of context ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("mpt", 128), ("led", 128), ("pegasus", 128), ("xlnet", None), ("switch", None)],
)
def test_limit_of_context(kind, limit, base_of):
    base = base_of(kind)
    assert base.max_positions == limit == position_limit(base.model.config)


@pytest.mark.parametrize("kind", ["mpt", "led"])
def test_a_text_longer_than_the_context_is_truncated_and_counted(kind, base_of):
    model = PromptModel(base_of(kind))
    task = Task(template="{text} Sentiment:", labels={"a": " positive", "b": " negative"})
    with pytest.warns(UserWarning, match="1 of 2 texts were too long"):
        model.predict(["good " * 200, "good"], task=task)


def test_a_prompt_longer_than_the_context_is_named(base_of):
    base = base_of("mpt")
    model = PromptModel(base)
    task = Task(template="{text} Sentiment:", labels={"a": " positive", "b": " negative"})
    model.load_prompt(soft_prompt(base, 130, task), name="long")
    with pytest.raises(TaskError, match=r"130 virtual tokens .* context of 128"):
        model.predict(["good"], prompt="long")
    with pytest.raises(TaskError, match=r"answer of up to 500 .* context of 128"):
        model.generate(["good"], max_new_tokens=500)
