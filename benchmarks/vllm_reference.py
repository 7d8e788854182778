"""Prompts for the demo base, greedy tokens of plain transformers, and the near-tie rule.

An answer is right if its tokens are the reference's. Where the reference's two best tokens are
within 1e-3, rounding may choose either, and what follows is not compared.
"""

from pathlib import Path

import torch
from record import DEMO_NAME

from softhub.model.gguf import convert_gguf
from softhub.model.loading import load_base
from softhub.model.prompt import SoftPrompt
from tests.prompts import soft_prompt

MARGIN = 1e-3


def demo_base(path):
    """Return the folder of a base, of a GGUF file too, and the base in float32."""
    folder = convert_gguf(Path(path), DEMO_NAME) if path.endswith(".gguf") else Path(path)
    return folder, load_base(folder, name=DEMO_NAME, dtype="float32")


def random_prompt(base, tokens, task=None, seed=0):
    """Return a random prompt with vectors as long as those of the vocabulary."""
    norm = base.embedding.float().norm(dim=1).mean() / base.hidden_size**0.5
    prompt = soft_prompt(base, tokens, task, seed=seed)
    return SoftPrompt(prompt.vectors * norm, prompt.manifest)


@torch.no_grad()
def greedy(base, vectors, ids, new_tokens, stop=()):
    """Return the stock model's greedy tokens, and the margin of each over the second best.

    Args:
        base: The base model.
        vectors: `[P, H]`, or None for the bare base.
        ids: Token ids of the text.
        new_tokens: Maximum number of tokens.
        stop: Tokens after which it ends.
    """
    row = base.embed(torch.tensor(ids))  # [T, H]
    if vectors is not None:
        row = torch.cat([vectors, row])  # [P + T, H]
    made, margins, cache, inputs = [], [], None, row[None]
    while len(made) < new_tokens and (not made or made[-1] not in stop):
        out = base.model(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
        top = out.logits[0, -1].topk(2)
        made.append(int(top.indices[0]))
        margins.append(float(top.values[0] - top.values[1]))
        cache, inputs = out.past_key_values, base.embed(torch.tensor([made[-1:]]))
    return made, margins


def verdict(reference, found):
    """Return `equal`, `near tie` or `wrong`.

    Args:
        reference: What `greedy` returned.
        found: The tokens of an answer, which may be longer than the reference.
    """
    made, margins = reference
    for step, (token, margin) in enumerate(zip(made, margins, strict=True)):
        if step >= len(found) or found[step] != token:
            return "near tie" if margin < MARGIN else "wrong"
    return "equal" if len(found) == len(made) else "wrong"
