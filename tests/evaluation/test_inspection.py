"""Looking into a prompt: every number against one computed the long way."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedTokenizerFast

from softhub.errors import IncompatiblePrompt, UnsupportedAdapter
from softhub.evaluation import inspection
from softhub.evaluation.inspection import CAVEAT, inspect_prompt
from softhub.evaluation.inspection_page import render_page
from softhub.model.encoding import Encoder
from softhub.model.loading import load_base
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Task, Template, Verbalizer
from tests.adapters import untrained_prompt
from tests.prompts import prefix

TASK = Task(
    name="mood",
    kind="classification",
    template=Template("Review: {text}\nSentiment:"),
    verbalizer=Verbalizer.from_mapping({"good": " positive", "bad": [" negative", " not"]}),
)


def with_manifest(prompt, **changes):
    return SoftPrompt(prompt.vectors, replace(prompt.manifest, **changes))


@pytest.fixture(params=["llama", "gemma2", "t5"])
def base(request, tiny_base):
    """Gemma scales its embeddings, which reading the table would miss; T5's table is wider."""
    return load_base(tiny_base(request.param))


@pytest.fixture
def llama(tiny_base):
    return load_base(tiny_base("llama"))


def all_embeddings(base):
    ids = sorted(base.tokenizer.get_vocab().values())
    return ids, base.embed(torch.tensor(ids)).detach()


@pytest.mark.parametrize("chunk", [7, 64, 100_000])
def test_neighbours_are_those_of_a_search_by_hand(base, monkeypatch, chunk):
    monkeypatch.setattr(inspection, "_CHUNK", chunk)
    prompt = untrained_prompt(base, tokens=3)
    found = inspect_prompt(prompt, base, neighbors=4)
    ids, table = all_embeddings(base)
    for vector, token in zip(prompt.vectors, found.tokens, strict=True):
        cosines = cosine_similarity(table, vector[None])
        distances = (table - vector).square().sum(dim=1).sqrt()
        nearest = cosines.argsort(descending=True)[:4].tolist()
        assert [item.id for item in token.by_cosine] == [ids[place] for place in nearest]
        assert [item.cosine for item in token.by_cosine] == pytest.approx(
            cosines[nearest].tolist(), abs=1e-6
        )
        assert [item.distance for item in token.by_cosine] == pytest.approx(
            distances[nearest].tolist(), rel=1e-5
        )


def test_norms_stand_among_those_of_the_vocabulary(base):
    prompt = untrained_prompt(base)
    found = inspect_prompt(prompt, base)
    _, table = all_embeddings(base)
    norms = table.norm(dim=1)
    assert found.vocabulary.size == len(norms)
    assert found.vocabulary.norms[0.5] == pytest.approx(norms.quantile(0.5).item(), rel=0.05)
    for vector, token in zip(prompt.vectors, found.tokens, strict=True):
        assert token.norm == pytest.approx(vector.norm().item(), rel=1e-6)
        shorter = (norms < vector.norm()).float().mean().item()
        assert token.norm_rank == pytest.approx(shorter, abs=1e-6)


def test_tokens_of_the_vocabulary_are_not_their_own_neighbours(llama):
    found = inspect_prompt(untrained_prompt(llama), llama)
    ids, table = all_embeddings(llama)
    directions = table / table.norm(dim=1, keepdim=True)
    cosines = (directions @ directions.T).fill_diagonal_(-1)
    assert len(ids) > 256  # a sample is drawn
    nearest = cosines.max(dim=1).values
    low, high = nearest.quantile(0.3).item(), nearest.quantile(0.7).item()
    assert low < found.vocabulary.nearest_cosine[0.5] < high


def test_a_vector_that_is_a_token_finds_itself(llama):
    ids = [17, 300, 41]
    vectors = llama.embed(torch.tensor(ids)).detach()
    prompt = SoftPrompt(vectors, replace(untrained_prompt(llama, tokens=3).manifest))
    found = inspect_prompt(prompt, llama, neighbors=1)
    assert [token.by_cosine[0].id for token in found.tokens] == ids
    assert all(token.by_cosine[0].distance == 0 for token in found.tokens)
    assert found.tokens[1].by_cosine[0].token == llama.tokenizer.decode([300])


def test_the_prompt_beside_itself_and_others(llama):
    prompt, other = untrained_prompt(llama, seed=1), untrained_prompt(llama, seed=2)
    shorter = untrained_prompt(llama, tokens=2)
    compared = {"self": prompt, "other": other, "short": shorter}
    found = inspect_prompt(prompt, llama, compare=compared)
    expected = cosine_similarity(prompt.vectors[:, None], prompt.vectors[None], dim=-1)
    assert torch.tensor(found.similarity) == pytest.approx(expected, abs=1e-6)
    own, different, short = found.others
    assert own.distance == 0
    assert own.similarity == pytest.approx(1, abs=1e-6)
    assert own.by_position == pytest.approx([1.0] * 4)
    pairs = cosine_similarity(prompt.vectors[:, None], other.vectors[None], dim=-1)
    means = [each.vectors.mean(dim=0) for each in (prompt, other, shorter)]
    cosines = [cosine_similarity(means[0], mean, dim=0).item() for mean in means[1:]]
    assert [different.similarity, short.similarity] == pytest.approx(cosines, abs=1e-6)
    assert different.by_position == pytest.approx(pairs.diagonal().tolist(), abs=1e-6)
    gap = (prompt.vectors - other.vectors).norm() / other.vectors.norm()
    assert different.distance == pytest.approx(gap.item(), rel=1e-6)
    assert (short.by_position, short.distance) == (None, None)


def test_drift_from_the_words_of_the_labels(llama):
    encoder = Encoder(llama.tokenizer, is_encoder_decoder=False)
    ids = [*encoder.candidates_of(TASK).token_ids]
    vectors = torch.cat([llama.embed(torch.tensor(ids)).detach(), torch.ones(2, 32)])
    moved = vectors + 0.1
    manifest = untrained_prompt(llama, TASK, tokens=len(moved)).manifest
    prompt = SoftPrompt(moved, replace(manifest, provenance={"init": "labels"}))
    found = inspect_prompt(prompt, llama)
    starts = [token.start for token in found.tokens]
    assert [start.id for start in starts[:-2]] == ids
    assert starts[-2:] == [None, None]  # drawn from the training texts, which are not at hand
    assert [start.distance for start in starts[:-2]] == pytest.approx([0.1 * 32**0.5] * len(ids))
    unknown = with_manifest(prompt, provenance={"init": "vocabulary"})
    assert all(token.start is None for token in inspect_prompt(unknown, llama).tokens)


def test_drift_from_what_the_prompt_said_of_the_task(llama):
    task = replace(TASK, description="How the buyer feels.")
    words = ", ".join(word.strip() for _, several in task.verbalizer.words for word in several)
    text = f"How the buyer feels: {words}."
    ids = llama.tokenizer(text, add_special_tokens=False)["input_ids"]
    vectors = torch.cat([torch.ones(2, 32), llama.embed(torch.tensor(ids)).detach()])
    manifest = untrained_prompt(llama, task, tokens=len(vectors)).manifest
    prompt = SoftPrompt(vectors, replace(manifest, provenance={"init": "task"}))
    starts = [token.start for token in inspect_prompt(prompt, llama).tokens]
    assert starts[:2] == [None, None]  # drawn from the training texts, which are not at hand
    assert [(start.id, start.distance) for start in starts[2:]] == [(one, 0.0) for one in ids]


def test_a_prefix_has_no_neighbours_among_the_tokens(llama):
    with pytest.raises(UnsupportedAdapter, match=r"The adapter is a prefix.*softhub similar"):
        inspect_prompt(prefix(llama, 3), llama)
    with pytest.raises(UnsupportedAdapter, match="'deep' is a prefix"):
        inspect_prompt(untrained_prompt(llama), llama, compare={"deep": prefix(llama, 3)})


def test_another_base_is_refused_unless_forced(llama, tiny_base):
    prompt = untrained_prompt(load_base(tiny_base("qwen3")), TASK)
    with pytest.raises(IncompatiblePrompt, match="made for tiny-qwen3"):
        inspect_prompt(prompt, llama)
    with pytest.warns(UserWarning, match="made for tiny-qwen3"):
        assert len(inspect_prompt(prompt, llama, force=True).tokens) == 4


def test_another_width_cannot_be_compared(llama):
    wide = untrained_prompt(llama)
    manifest = replace(wide.manifest, hidden_size=64)
    other = SoftPrompt(torch.ones(4, 64), manifest)
    with pytest.raises(IncompatiblePrompt, match="the width 64 and this one 32"):
        inspect_prompt(untrained_prompt(llama), llama, compare={"wide": other})


def test_the_record_is_json_and_brings_the_caveat(llama):
    found = inspect_prompt(untrained_prompt(llama), llama, neighbors=10_000)
    record = json.loads(json.dumps(found.to_record()))
    assert record["caveat"] == CAVEAT
    assert len(record["tokens"][0]["by_cosine"]) == record["vocabulary"]["size"] - 1


def byte_level(*texts):
    """A tokenizer with GPT-2's bytes and these tokens."""
    vocabulary = {each: number for number, each in enumerate([*ByteLevel.alphabet(), *texts])}
    inner = Tokenizer(BPE(vocabulary, []))
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def sentencepiece(*texts):
    inner = Tokenizer(BPE({each: number for number, each in enumerate(texts)}, []))
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner)


@pytest.mark.parametrize(
    ("tokenizer", "raw", "shown"),
    [
        (byte_level, "Ġgood", " good"),
        (byte_level, "Ġ", " "),
        (byte_level, "ĊĊ", "\n\n"),
        (byte_level, "ĠgroÃŁ", " groß"),  # whole characters
        (byte_level, "âĢ", "<0xE2><0x80>"),  # two bytes of three
        (byte_level, "Ġâ", " <0xE2>"),
        (byte_level, "å¥½ä", "好<0xE4>"),
        (sentencepiece, "▁good", " good"),
        (sentencepiece, "▁", " "),
        (sentencepiece, "<0xE2>", "<0xE2>"),
    ],
)
def test_tokens_are_shown_as_text(tokenizer, raw, shown):
    base = SimpleNamespace(tokenizer=tokenizer(raw))
    index = base.tokenizer.convert_tokens_to_ids(raw)
    assert inspection._text_of(base, index) == shown


def test_a_page_for_a_narrow_window(llama):
    prompt = untrained_prompt(llama, seed=1)
    compare = {"other": untrained_prompt(llama, seed=2)}
    page = render_page(inspect_prompt(prompt, llama, compare=compare), name="mine")
    assert page.count('class="wide"') == 3  # the plots and both tables scroll
    assert "<caption" not in page
    # A token and its figure stay on one line, and a long list of them wraps.
    token = r'<span class="token"><code>.+?</code> -?0\.\d\d,</span> <span'
    assert re.search(token, page)
    assert "white-space: pre" in page and "pre-wrap" not in page
