"""Is every answer of a batch what plain transformers computes for the row alone?

The reference of each row is the stock model, with one row, without pads, masks or a cache: its
token ids where the row has no prompt, else its prompt and its text as embeddings.
"""

import torch
from transformers.utils import is_flash_attn_2_available

from gpu_parts.models import FAMILIES, random_vectors, soft_prompt, tiny_base, token_rows
from softhub import PromptModel, Task
from softhub.model.assembly import pad_rows
from softhub.model.encoding import Candidates
from softhub.model.packing import SharedPrompt, longest_packed
from softhub.model.scoring import encode_rows, label_scores, target_logprobs

TEXTS = token_rows((37, 5, 20, 1))
PROMPTS = (5, None, 12, 5)  # virtual tokens of the rows of a mixed batch
LABELS = ((70,), (71, 72, 73), (74, 75), (76,))  # tokens of the label words
WORDS = [" ".join(f"w{token}" for token in text) for text in TEXTS]
NAMES = [None if count is None else f"p{count}" for count in PROMPTS]
CANDIDATES = Candidates(("a", "b", "c", "d"), LABELS, (0, 1, 2, 3))
TASK = Task(
    template="{text}",
    labels={n: "".join(f" w{t}" for t in word) for n, word in zip("abcd", LABELS, strict=True)},
)
TARGETS = ((80, 81), (82,), (83, 84, 85, 86), (87, 88, 89))
NEW_TOKENS = 8
FEW = ("llama", "gemma2", "bloom")  # all that a dry run asks but with the first of the settings
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Largest deviation, relative to the largest value; greedy tokens may differ below it too."""

SETTINGS = [
    *((torch.float32, name) for name in ("sdpa", "eager")),
    *((torch.bfloat16, name) for name in ("sdpa", "eager", "flash_attention_2")),
    *((torch.float16, name) for name in ("sdpa", "eager", "flash_attention_2")),
]


@torch.no_grad()
def alone(base, vectors, text, answer):
    """Return the summed log-probability of an answer, by the stock model for one row."""
    device = base.device
    if base.is_encoder_decoder:
        start = base.model.config.decoder_start_token_id
        decoder = torch.tensor([[start, *answer[:-1]]], device=device)
        inputs = {**stock_inputs(base, vectors, text), "decoder_input_ids": decoder}
        logits = base.model(**inputs).logits[0]
    else:
        inputs = stock_inputs(base, vectors, [*text, *answer[:-1]])
        logits = base.model(**inputs).logits[0, -len(answer) :]
    chosen = torch.tensor([answer], device=device).T  # [N, 1]
    return logits.float().log_softmax(-1).gather(1, chosen).sum()


def stock_inputs(base, vectors, text):
    """Return ids, or the embeddings of a prompt `[P, H]` and of a text."""
    ids = torch.tensor([text], device=base.device)
    if vectors is None:
        return {"input_ids": ids}
    embedded = base.embed(ids)
    return {"inputs_embeds": torch.cat([vectors.to(embedded.dtype)[None], embedded], dim=1)}


def labels_alone(base, prompts):
    """Return label scores `[B, labels]` of the stock model."""
    rows = [
        [alone(base, vectors, text, word) for word in LABELS]
        for vectors, text in zip(prompts, TEXTS, strict=True)
    ]
    return torch.tensor(rows)


@torch.no_grad()
def in_a_batch(base, prompts):
    """Return label scores `[B, labels]` of softhub, for one batch."""
    encoded = encode_rows(base, prompts, pad_rows(TEXTS), keep_cache=True)
    return label_scores(base, encoded, CANDIDATES).cpu()


@torch.no_grad()
def padded(base, side):
    """Return next-token logits `[B, V]` of the stock model for ids with pads on one side."""
    rows = pad_rows(TEXTS, side=side).to(base.device)
    options = {"attention_mask": rows.mask.long()}
    if "position_ids" in base.forward_parameters:
        options["position_ids"] = (rows.mask.long().cumsum(-1) - 1).clamp_min(0)
    logits = base.model(input_ids=rows.ids, use_cache=False, **options).logits
    last = rows.mask.sum(-1) - 1 if side == "right" else torch.full((len(TEXTS),), -1)
    return logits[torch.arange(len(TEXTS)), last.cpu()].float().cpu()


@torch.no_grad()
def next_logits_alone(base):
    """Return next-token logits `[B, V]` of the stock model, row by row."""
    logits = (base.model(**stock_inputs(base, None, text)).logits[0, -1] for text in TEXTS)
    return torch.stack([row.float().cpu() for row in logits])


def gradient(base, vectors, form):
    """Return the gradient `[P, H]` of scores and targets with respect to a prompt."""
    prompt = vectors.clone().requires_grad_()
    prompts, texts = [form(prompt)] * len(TEXTS), pad_rows(TEXTS)
    scores = label_scores(base, encode_rows(base, prompts, texts, keep_cache=True), CANDIDATES)
    targets = target_logprobs(base, prompts, texts, pad_rows(TARGETS, side="right"))
    (scores.sum() + targets.sum()).backward()
    return prompt.grad.float().cpu()


def predicted(model):
    """Return label scores `[B, labels]` of `predict`, which shares keys where that is exact."""
    found = model.predict(WORDS, prompt=NAMES, task=TASK)
    return torch.tensor([[*each.scores.values()] for each in found])


def loaded(base):
    """Return the base with the prompts of a mixed batch."""
    model = PromptModel(base)
    for count in {*PROMPTS} - {None}:
        vectors = random_vectors(base, count, seed=count)
        model.load_prompt(soft_prompt(base, vectors), name=f"p{count}")
    return model


def pairs(model):
    """Yield the name of each comparison, what was found, and what was expected."""
    base = model.base
    vectors = random_vectors(base, PROMPTS[0])
    mixed = [None if n is None else random_vectors(base, n, seed=n) for n in PROMPTS]
    same = [vectors] * len(TEXTS)
    expected = {"batch": labels_alone(base, same), "mixed prompts": labels_alone(base, mixed)}
    yield "batch", in_a_batch(base, same), expected["batch"]
    yield "mixed prompts", in_a_batch(base, mixed), expected["mixed prompts"]
    if not base.is_encoder_decoder:  # whose prompts have no keys and values of their own
        yield "predict, shared keys", predicted(model), expected["mixed prompts"]
    if longest_packed(base) > max(map(len, TEXTS)) + PROMPTS[0]:
        yield "packed", in_a_batch(base, [SharedPrompt(vectors)] * len(TEXTS)), expected["batch"]
        packed, rows = (gradient(base, vectors, form) for form in (SharedPrompt, lambda v: v))
        yield "packed gradient", packed, rows
    with torch.no_grad():
        targets = pad_rows(TARGETS, side="right")
        found = target_logprobs(base, mixed, pad_rows(TEXTS), targets).sum(-1).cpu()
    rows = zip(mixed, TEXTS, TARGETS, strict=True)
    yield "targets", found, torch.tensor([alone(base, *row) for row in rows])
    if not base.is_encoder_decoder:
        stock = next_logits_alone(base)
        yield from ((f"pads {side}", padded(base, side), stock) for side in ("left", "right"))


def texts(model, tolerance):
    """Return how many generated texts differ from the stock model's, and how many near ties."""
    base, options = model.base, {"max_new_tokens": NEW_TOKENS, "do_sample": False}
    found = model.generate(WORDS, prompt=NAMES, **options)
    wrong, ties = 0, 0
    for text, count, new in zip(TEXTS, PROMPTS, found, strict=True):
        vectors = None if count is None else random_vectors(base, count, seed=count)
        inputs = stock_inputs(base, vectors, text)
        mask = torch.ones(next(iter(inputs.values())).shape[:2], device=base.device).long()
        stock = base.model.generate(
            **inputs,
            attention_mask=mask,
            output_scores=True,
            return_dict_in_generate=True,
            pad_token_id=0,
            **options,
        )
        scores = torch.stack(stock.scores).float()  # [N, 1, V]
        best = scores.topk(2).values
        tied = bool(((best[..., 0] - best[..., 1]) <= tolerance * scores.abs().amax(-1)).any())
        own = stock.sequences[0, -len(stock.scores) :]
        if new != base.tokenizer.decode(own, skip_special_tokens=True):
            wrong, ties = wrong + (not tied), ties + tied
    return {"texts_wrong": wrong, "texts_in_near_ties": ties}


def check_family(base, tolerance):
    """Return the deviation of each comparison for one base, and what is wrong."""
    model, deviations = loaded(base), {}
    for name, found, expected in pairs(model):
        scale = expected.abs().max()
        deviation = (found - expected).abs().max() / scale
        deviations[name] = float(deviation.nan_to_num(torch.inf))
    generated = texts(model, tolerance)
    wrong = [name for name, deviation in deviations.items() if not deviation <= tolerance]
    wrong += ["texts"] * bool(generated["texts_wrong"])
    return {"deviations": deviations, **generated, "wrong": wrong}


def exactness(machine, dtype, attention):
    """Compare batches of all families, in one dtype and with one attention, with rows alone."""
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        return {"skipped": "flash-attn is not installed, or there is no GPU for it"}
    found, unsupported = {}, {}
    few = machine.tiny and (dtype, attention) != SETTINGS[0]
    for family in FEW if few else FAMILIES:
        try:
            base = tiny_base(family, machine.device, dtype, attention)
        except (ValueError, ImportError) as error:
            unsupported[family] = str(error).splitlines()[0]
            continue
        try:
            found[family] = check_family(base, TOLERANCE[dtype])
        except Exception as error:  # one family must not hide the others
            found[family] = {"wrong": [f"{type(error).__name__}: {error}".splitlines()[0]]}
    wrong = {family: each["wrong"] for family, each in found.items() if each["wrong"]}
    deviations = [max(each["deviations"].values()) for each in found.values() if len(each) > 1]
    return {
        "families": found,
        "unsupported": unsupported,
        "tolerance": TOLERANCE[dtype],
        "passed": not wrong,
        "summary": f"{len(found)} families, largest deviation {max(deviations, default=0.0):.1e}"
        + (f", wrong: {wrong}" if wrong else ""),
    }
