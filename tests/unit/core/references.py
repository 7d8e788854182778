"""Plain PEFT and transformers, one row at a time: what every batched answer is held against."""

import torch
from peft import PromptTuningConfig, get_peft_model

from softhub.base import load_base


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
