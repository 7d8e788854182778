"""Lengths in a base's tokens, counted without its weights, are those of training."""

from collections.abc import Callable
from pathlib import Path

import pytest

from softhub.errors import BaseModelError
from softhub.model.encoding import Encoder
from softhub.model.loading import load_base
from softhub.model.token_lengths import TokenCounter
from softhub.tasks import Task, Template, Verbalizer

TEMPLATE = Template("Review: {text}\nSentiment:")
ROW = {"text": "The sound is good, the screen is not great."}


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_lengths_are_those_of_the_loaded_base(tiny_base: Callable[[str], Path], kind: str) -> None:
    folder = tiny_base(kind)
    ruler, base = TokenCounter.from_pretrained(str(folder)), load_base(folder)
    encoder = Encoder(base.tokenizer, is_encoder_decoder=base.is_encoder_decoder)
    assert ruler.length(TEMPLATE, ROW) == len(encoder.encode(TEMPLATE, ROW).ids)
    assert ruler.unit == "tokens"
    assert ruler.limit == (512 - 128 if kind == "llama" else None)


def test_words_that_melt_into_the_template_are_told(tiny_base: Callable[[str], Path]) -> None:
    ruler = TokenCounter.from_pretrained(str(tiny_base("llama")))
    same = Verbalizer.from_mapping({"a": " good", "b": " bad"})
    task = Task(name="t", kind="classification", template=TEMPLATE, verbalizer=same)
    assert ruler.problem(task) is None
    glued = Verbalizer.from_mapping({"a": "d", "b": "t"})
    end = Template("It is {text} goo")
    broken = Task(name="t", kind="classification", template=end, verbalizer=glued)
    assert "merges with the end of the template" in str(ruler.problem(broken))


def test_a_missing_base_is_a_sentence() -> None:
    with pytest.raises(BaseModelError, match=r"No base model at '\./nowhere'"):
        TokenCounter.from_pretrained("./nowhere")
