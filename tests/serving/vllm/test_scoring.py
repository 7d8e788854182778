"""Label scores from next-token log-probabilities equal those of PromptModel.

The engine here is plain transformers, one row at a time on the row that vLLM would get.
"""

import asyncio

import pytest
import torch

from softhub.inference.engine import PromptModel
from softhub.inference.prediction import decide
from softhub.model.prompt import SoftPrompt
from softhub.serving.vllm.rows import assemble
from softhub.serving.vllm.scoring import label_scores, next_tokens, sequence_logprobs
from softhub.serving.vllm.served import encode_rows
from softhub.tasks import Task, Template, Verbalizer
from tests.prompts import MOOD, TEXTS, TOPIC
from tests.references import assert_equal_in_float32

ORGANS = Task(
    name="organs",
    kind="classification",
    template=Template("{text} It is about the"),
    verbalizer=Verbalizer.from_mapping({"heart": " heart", "nerves": " nervous system"}),
    multilabel=True,
)


def plain_engine(base, prompt, asked):
    """What a row's next token may be, by the stock model on embeddings."""

    async def run(ids, tokens):
        asked.append((tuple(ids), tuple(tokens)))
        row = assemble(prompt, ids)
        mask = torch.tensor(row.is_token)[:, None]
        # [1, P + T, H]
        mixed = torch.where(mask, base.embed(torch.tensor(row.ids)), row.embeds)[None]
        with torch.no_grad():
            logprobs = base.model(inputs_embeds=mixed).logits[0, -1].log_softmax(-1)
        return {token: float(logprobs[token]) for token in tokens}

    return run


@pytest.mark.parametrize("task", [MOOD, TOPIC, ORGANS], ids=lambda task: task.name)
def test_predictions_equal_those_of_prompt_model(base, prompts_of, adapter, task):
    folder = adapter("p", task, tokens=7)
    prompts = prompts_of(f"p={folder}")
    prompt = asyncio.run(prompts.find("p"))
    model = PromptModel(base)
    model.load_prompt(SoftPrompt.from_pretrained(folder), name="p")
    expected = model.predict(TEXTS, prompt="p")
    for text, reference in zip(TEXTS, expected, strict=True):
        (row,) = encode_rows(prompts.base, prompt, [text], [9])
        run = plain_engine(base, prompt, [])
        words = asyncio.run(sequence_logprobs(run, row.ids, prompt.candidates.sequences, 128))
        scores = label_scores(prompt.candidates, words)
        found = decide(prompt.candidates, scores, prompt.task.decision)
        sizes = torch.tensor([200.0] * len(scores))  # log-odds are differences of large sums
        assert_equal_in_float32(found.scores, reference.scores, terms=sizes)
        assert found.label == reference.label and found.labels == reference.labels


def test_reference_texts_equal_those_of_prompt_model(base, prompts_of, adapter):
    folder = adapter("p", MOOD, tokens=7)
    prompts = prompts_of(f"p={folder}")
    prompt = asyncio.run(prompts.find("p"))
    model = PromptModel(base)
    model.load_prompt(SoftPrompt.from_pretrained(folder), name="p")
    target = " not good"
    (expected,) = model.target_logprobs([TEXTS[1]], [target], prompt="p")
    tokens = prompts.base.encoder.target(prompt.task.template, target)
    (row,) = encode_rows(prompts.base, prompt, [TEXTS[1]], [len(tokens)])
    run = plain_engine(base, prompt, [])
    (found,) = asyncio.run(sequence_logprobs(run, row.ids, [tokens], 128))
    assert_equal_in_float32(found, list(expected))


def test_words_share_rows_and_no_row_asks_for_too_many_tokens(base, prompts_of, adapter):
    prompts = prompts_of(f"p={adapter('p', MOOD)}")
    prompt, asked = asyncio.run(prompts.find("p")), []
    sequences = [(9,), (10, 11), (10, 12), (10, 11, 13), (14,)]
    assert next_tokens(sequences) == {(): [9, 10, 14], (10,): [11, 12], (10, 11): [13]}
    run = plain_engine(base, prompt, asked)
    found = asyncio.run(sequence_logprobs(run, [5], sequences, 2))
    assert list(map(len, found)) == [1, 2, 2, 3, 1]
    assert found[1][0] == found[2][0] and found[1] == found[3][:2]
    assert asked == [((5,), (9, 10)), ((5,), (14,)), ((5, 10), (11, 12)), ((5, 10, 11), (13,))]
