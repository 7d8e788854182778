"""How many tokens a batch computes, which the next batch is chosen by."""

import pytest

from softhub.inference.engine import PromptModel
from softhub.inference.scored_batches import computed_tokens
from tests.prompts import MOOD, soft_prompt


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("prompt", [None, "mood"])
def test_tokens_of_a_prompt_count_where_they_are_computed(kind, prompt, loaded):
    base = loaded(kind)
    model = PromptModel(base)
    model.load_prompt(soft_prompt(base, 9, MOOD), name="mood")
    model.predict(["cached"], prompt="mood")
    request = model.requests.classification(
        "good and great", model.find(prompt), model.requests.prepare(MOOD)
    )
    side = base.model.get_encoder() if base.is_encoder_decoder else base.model.get_decoder()
    widths = []

    def watch(_, args, given):
        inputs = [*args, given.get("input_ids"), given.get("inputs_embeds")]
        widths.extend(each.shape[1] for each in inputs if each is not None)

    hook = side.register_forward_pre_hook(watch, with_kwargs=True)
    model.predict_batch([request])
    hook.remove()
    assert widths[:1] == computed_tokens(base, [request])
