"""Label scores and target losses in mixed batches against plain PEFT, row by row."""

import pytest
import torch

from softhub.model.assembly import pad_rows
from softhub.model.encoding import Candidates
from softhub.model.kv_cache import encode_prefix, shares_prefixes
from softhub.model.loading import load_base
from softhub.model.scoring import encode_rows, label_scores, target_logprobs
from softhub.training.data import IGNORE_INDEX
from softhub.training.module import LossModule
from tests.references import assert_equal_in_float32, sequence_logprob, with_peft
from tests.tiny import BUILDERS, HIDDEN_SIZE, SLIDING_WINDOW

TEXTS = [
    (20, 31, 42),
    (50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62),
    (33,),
    (40, 41, 42, 43),
]
LENGTHS = [5, None, 12, 1]
WIDTH = 12 + 13 + 2  # longest prompt, longest text, and what continues it
CANDIDATES = Candidates(
    ("one", "two", "both"),
    ((70,), (71, 72, 73), (71, 74), (75, 76)),
    (0, 1, 2, 2),
)
SINGLE = Candidates(("one", "two"), ((70,), (71,)), (0, 1))


@pytest.fixture
def vectors():
    torch.manual_seed(3)
    return [None if n is None else torch.randn(n, HIDDEN_SIZE) for n in LENGTHS]


def start_token(base):
    return base.model.config.decoder_start_token_id if base.is_encoder_decoder else None


def expected_scores(folder, vectors, candidates):
    """Label scores of every row alone, from plain PEFT."""
    start = start_token(load_base(folder))
    rows = []
    for text, prompt in zip(TEXTS, vectors, strict=True):
        model = with_peft(folder, prompt)
        words = [sequence_logprob(model, text, answer, start) for answer in candidates.sequences]
        rows.append(
            [
                torch.tensor([w for w, o in zip(words, candidates.owners, strict=True) if o == i])
                .logsumexp(0)
                .item()
                for i in range(len(candidates.labels))
            ]
        )
    return torch.tensor(rows)


@pytest.mark.parametrize("candidates", [SINGLE, CANDIDATES], ids=["one-token", "many-tokens"])
@pytest.mark.parametrize("kind", BUILDERS)
def test_mixed_batch_equals_each_row_alone(kind, candidates, tiny_base, vectors):
    folder = tiny_base(kind)
    base = load_base(folder)
    expected = expected_scores(folder, vectors, candidates)
    forms = [vectors]
    if shares_prefixes(base, WIDTH):
        forms.append([None if v is None else encode_prefix(base, v) for v in vectors])
    for prompts in forms:
        with torch.no_grad():
            encoded = encode_rows(base, prompts, pad_rows(TEXTS), keep_cache=True)
            scores = label_scores(base, encoded, candidates)
            again = encode_rows(base, prompts, pad_rows(TEXTS), keep_cache=False)
            without_cache = label_scores(base, again, candidates)
            part = label_scores(base, encoded.select([2, 0]), candidates)
        assert_equal_in_float32(scores, expected)
        assert_equal_in_float32(without_cache, expected)
        assert_equal_in_float32(part, expected[[2, 0]])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gpt2", "opt"])
def test_plain_decoders_share_prefixes(kind, tiny_base):
    assert shares_prefixes(load_base(tiny_base(kind)))


@pytest.mark.parametrize("kind", ["mistral", "gemma2"])
def test_windows_share_them_as_far_as_they_see_whole_rows(kind, tiny_base):
    base = load_base(tiny_base(kind))
    assert shares_prefixes(base, SLIDING_WINDOW)
    assert not shares_prefixes(base, SLIDING_WINDOW + 1)


def test_encoders_do_not(tiny_base):
    assert not shares_prefixes(load_base(tiny_base("t5")))


@pytest.mark.parametrize("kind", BUILDERS)
def test_target_logprobs_equal_teacher_forcing_alone(kind, tiny_base, vectors):
    folder = tiny_base(kind)
    base = load_base(folder)
    targets = [(80, 81), (82,), (83, 84, 85, 86), (87, 88, 89)]
    start = start_token(base)
    expected = [
        sequence_logprob(with_peft(folder, prompt), text, target, start)
        for text, target, prompt in zip(TEXTS, targets, vectors, strict=True)
    ]
    with torch.no_grad():
        found = target_logprobs(base, vectors, pad_rows(TEXTS), pad_rows(targets, side="right"))
    assert_equal_in_float32(found.sum(-1), expected)


@pytest.fixture
def forcing(bart):
    """A BART whose generated answers all begin with BOS."""
    base = load_base(bart)
    base.model.generation_config.forced_bos_token_id = base.tokenizer.bos_token_id
    return base


@torch.no_grad()
def after_forced(base, text, answer):
    """Plain log-probabilities of an answer's tokens, for labels that begin with BOS."""
    labels = [base.tokenizer.bos_token_id, *answer]
    logits = base.model(torch.tensor([text]), labels=torch.tensor([labels])).logits[0, 1:]
    pairs = zip(logits.log_softmax(-1), answer, strict=True)
    return [row[token].item() for row, token in pairs]


def test_reference_tokens_follow_the_token_that_generation_forces(forcing):
    base, found = forcing, []
    for text in TEXTS:
        ids = torch.tensor([text])
        output = base.model.generate(
            ids, max_new_tokens=6, num_beams=1, output_logits=True, return_dict_in_generate=True
        )
        start, forced, *new = output.sequences[0].tolist()
        assert (start, forced) == (base.start_id, base.tokenizer.bos_token_id)
        generated = torch.cat(output.logits)[1:].log_softmax(-1)  # without the forced token
        expected = generated.gather(1, torch.tensor([new]).T).squeeze(1)
        found.append((new, expected))
        assert_equal_in_float32(after_forced(base, text, new), expected)
    targets = pad_rows([new for new, _ in found], side="right")
    with torch.no_grad():
        together = target_logprobs(base, [None] * len(TEXTS), pad_rows(TEXTS), targets)
    for scores, (new, expected) in zip(together, found, strict=True):
        assert_equal_in_float32(scores[: len(new)], expected)


def test_labels_follow_the_token_that_generation_forces(forcing):
    with torch.no_grad():
        encoded = encode_rows(forcing, [None] * len(TEXTS), pad_rows(TEXTS), keep_cache=True)
        scores = label_scores(forcing, encoded, CANDIDATES)
    for found, text in zip(scores, TEXTS, strict=True):
        words = [sum(after_forced(forcing, text, word)) for word in CANDIDATES.sequences]
        both = torch.tensor(words[2:]).logsumexp(0).item()
        assert_equal_in_float32(found, [*words[:2], both])


def test_the_loss_is_that_of_labels_that_begin_with_the_forced_token(forcing):
    targets = [(80, 81), (82,), (83, 84, 85, 86), (87, 88, 89)]
    texts, labels = pad_rows(TEXTS), pad_rows(targets, side="right")
    ids = labels.ids.masked_fill(~labels.mask, IGNORE_INDEX)
    found = LossModule(forcing, None)(texts.ids, texts.mask, ids)["losses"]
    pairs = zip(TEXTS, targets, strict=True)
    assert_equal_in_float32(found, [-sum(after_forced(forcing, *pair)) for pair in pairs])


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_gradient_through_shared_prefix_equals_gradient_through_rows(kind, tiny_base):
    base = load_base(tiny_base(kind))
    gradients = []
    for shared in (True, False):
        prompt = torch.ones(4, HIDDEN_SIZE, requires_grad=True)
        prompts = [encode_prefix(base, prompt) if shared else prompt] * len(TEXTS)
        encoded = encode_rows(base, prompts, pad_rows(TEXTS), keep_cache=True)
        label_scores(base, encoded, CANDIDATES).sum().backward()
        gradients.append(prompt.grad)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
    assert all(parameter.grad is None for parameter in base.model.parameters())


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_the_vocabulary_meets_rows_that_lie_together(kind, tiny_base, monkeypatch, vectors):
    """A slice would make torch multiply it row by row; a base on several devices needs one."""
    base, texts = load_base(tiny_base(kind)), pad_rows(TEXTS)
    together = []
    for width in (0, WIDTH):
        base.capabilities.batching(width)  # asking uses the head too
    head = base.model.get_output_embeddings()
    head.register_forward_pre_hook(lambda _, inputs: together.append(inputs[0].is_contiguous()))
    found = encode_rows(base, vectors, texts, keep_cache=False, keep_logits=2)
    monkeypatch.setattr(base.model, "hf_device_map", {"model": 0, "lm_head": 1}, raising=False)
    sliced = encode_rows(base, vectors, texts, keep_cache=False, keep_logits=2)
    assert together == [True, False]
    torch.testing.assert_close(found.logits, sliced.logits)
