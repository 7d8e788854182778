"""The demo's real encoder-decoder base: it translates, and prompts run on it as in plain PEFT."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recipes.data import demo_t5
from softhub.inference.engine import PromptModel
from softhub.model.encoding import Encoder
from softhub.model.loading import load_base
from softhub.tasks import Task, Template
from tests.prompts import soft_prompt

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TASK = Path(demo_t5.__file__).parents[1] / "tasks" / "translation_t5.yaml"
SENTENCES = {
    "The house is wonderful.": "Das Haus ist wunderbar.",
    "The house is big.": "Das Haus ist groß.",
}


@pytest.fixture(scope="module")
def base():
    done = subprocess.run([sys.executable, demo_t5.__file__], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the T5 cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
    return load_base(demo_t5.FOLDER)


def test_it_is_the_t5_that_the_package_holds(base):
    assert (base.name, base.quantization) == ("flan-t5-small-title", "onnx-int8")
    assert (base.task_type, base.hidden_size, base.max_positions) == ("SEQ_2_SEQ_LM", 512, None)
    assert sum(weight.numel() for weight in base.model.parameters()) == 76_961_152
    # Tied, as transformers would have it, the head would be the embeddings.
    assert not torch.equal(base.model.lm_head.weight, base.model.shared.weight)


def test_it_translates_as_flan_t5_does(base):
    model = PromptModel(base)
    task = Task.from_file(TASK)
    answers = model.generate([{"en": text} for text in SENTENCES], task=task)
    assert answers == list(SENTENCES.values())


def test_a_prompt_before_the_text_is_what_the_encoder_reads(base):
    """The words of the template as a soft prompt give what the template gives."""
    model = PromptModel(base)
    bare = Task(name="bare", kind="generation", text_column="en", template=Template("{en}"))
    start = Encoder(base.tokenizer, is_encoder_decoder=True)
    ids = start.encode(bare.template, {"en": "translate English to German:"}, text_column="en").ids
    prompt = soft_prompt(base, len(ids) - 1, bare)
    vectors = base.embed(torch.tensor(ids[:-1])).detach()  # without the end of the sequence
    model.load_prompt(type(prompt)(vectors, prompt.manifest), name="german")
    answers = model.generate(list(SENTENCES), prompt="german", max_new_tokens=24)
    assert answers == list(SENTENCES.values())
