"""Plain PEFT and transformers, one row at a time: what every batched answer is compared with."""

from collections.abc import Mapping

import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import AutoTokenizer

from softhub.model.loading import load_base
from tests.prompts import PROMPTS, soft_prompt

# A logit of a tiny base is the end of a chain of eight matrix products (two layers of attention and
# MLP), each a float32 sum of at most 64 terms. A sum of n terms may be off by n units in the last
# place (2**-24 of its size), and other kernels (AVX2, AVX-512, more threads) add in another order.
ROUNDING = 8 * 64 * 2**-24


def assert_equal_in_float32(found, expected, *, terms=None, floor=1e-4):
    """Compare logits or log-probabilities as precisely as float32 allows at their size.

    A sum of log-probabilities, which all have one sign, is off by the same share as its terms.

    Args:
        found: A tensor, a number, a sequence of numbers, or a mapping to numbers.
        expected: Another one; of two mappings the keys are compared too.
        terms: Summed sizes of the terms where `expected` is a difference of large numbers.
        floor: Smallest tolerance; the default is what the design promises for logits.
    """
    if isinstance(expected, Mapping):
        assert list(found) == list(expected)
        found, expected = list(found.values()), list(expected.values())
    found, expected = (torch.as_tensor(each, dtype=torch.float64) for each in (found, expected))
    assert found.shape == expected.shape
    size = expected.abs() if terms is None else torch.as_tensor(terms, dtype=torch.float64)
    excess = (found - expected).abs() - (ROUNDING * size).clamp_min(floor)
    assert bool((excess <= 0).all()), f"found {found}, expected {expected}, {excess.max()} too far"


def with_peft(folder, vectors):
    """A PEFT model of its own base with the prompt `vectors` [P, H]; None gives the bare base."""
    base = load_base(folder)
    if vectors is None:
        return base.model
    config = PromptTuningConfig(
        task_type=base.task_type,
        num_virtual_tokens=vectors.shape[0],
        num_transformer_submodules=1,
    )
    model = get_peft_model(base.model, config).eval()
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.copy_(vectors)
    return model


@torch.no_grad()
def sequence_logprob(model, text, answer, start=None):
    """Summed log-probability of `answer` behind `text`; `start` is a decoder's first token."""
    if start is not None:
        decoder = torch.tensor([[start, *answer[:-1]]])
        logits = model(input_ids=torch.tensor([text]), decoder_input_ids=decoder).logits[0]
    else:
        logits = model(input_ids=torch.tensor([[*text, *answer[:-1]]])).logits[0, -len(answer) :]
    return sum(row.log_softmax(-1)[token].item() for row, token in zip(logits, answer, strict=True))


def target_nll(model, task, examples, prompt=None, batch_size=32):
    """Negative log-likelihood per target token, the end's included: what training minimizes."""
    rows, targets = [each.row for each in examples], [each.target for each in examples]
    scores = model.target_logprobs(rows, targets, prompt=prompt, task=task, batch_size=batch_size)
    return -sum(map(sum, scores)) / sum(map(len, scores))


def reference(model, folder, name):
    """Plain PEFT with a prompt of `PROMPTS`, and the tokens of a text as plain transformers has."""
    vectors = None
    if name is not None:
        _, rows, seed = PROMPTS[name]
        vectors = soft_prompt(model.base, rows, seed=seed).vectors
    return with_peft(folder, vectors), AutoTokenizer.from_pretrained(folder)


def greedy(model, folder, name, text, tokens, **options):
    """Plain `generate` for one row, and the smallest top-2 margin on its way."""
    plain, tokenizer = reference(model, folder, name)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    output = plain.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
        **options,
    )
    best = torch.stack(output.scores).log_softmax(-1).topk(2).values
    new = output.sequences[0, -len(output.scores) :]
    margin = float((best[..., 0] - best[..., 1]).min())
    return tokenizer.decode(new, skip_special_tokens=True), margin
