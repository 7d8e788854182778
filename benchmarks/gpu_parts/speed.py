"""How long do training steps, prefill, mixed batches and `generate` take, against stock PEFT?"""

from functools import partial

import torch
from peft import PromptTuningConfig, get_peft_model

from gpu_parts.machine import at_least, ratio, shown
from gpu_parts.models import WORDS, random_vectors, soft_prompt
from softhub import PromptModel
from softhub.model.assembly import PaddedBatch
from softhub.model.encoding import Candidates
from softhub.model.kv_cache import encode_prefix
from softhub.model.scoring import encode_rows
from softhub.training.module import PromptTuningModule

SHAPES = ((20, 8, 48), (100, 8, 32), (20, 32, 256))  # virtual tokens P, batch B, tokens T
STEP_BARS = (1.5, 2.5)  # times stock PEFT, of the first two on 1B
PREFILLS = ((100, 1, 128), (100, 8, 128), (100, 32, 512))
PREFILL_BAR = 1.10
MANY = (32, 256)
MANY_BAR = 0.9
CANDIDATES = Candidates(("a", "b"), ((70,), (71,)), (0, 1))


def token_batch(machine, rows, columns):
    """Return random tokens without pads, `[B, T]`."""
    ids = torch.randint(2, WORDS, (rows, columns), device=machine.device)
    return PaddedBatch(ids, torch.ones_like(ids, dtype=torch.bool))


def peft_model(base, tokens):
    """Return the base in stock PEFT, with a prompt of its own."""
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=tokens)
    return get_peft_model(base.model, config)


# --- training steps -------------------------------------------------------------------------------


def own_step(machine, base, tokens, rows, columns):
    """Return a function that makes one training step of softhub, and its module."""
    module = PromptTuningModule(base, random_vectors(base, tokens), CANDIDATES).train()
    texts = token_batch(machine, rows, columns - 1)  # the label follows
    labels = torch.zeros(rows, dtype=torch.int64, device=machine.device)
    optimizer = torch.optim.AdamW([module.prompt], lr=1e-3)

    def step(forward=module):
        optimizer.zero_grad()
        with module.packed_attention():
            forward(texts.ids, texts.mask, labels)["loss"].backward()
        optimizer.step()

    return step, module


def peft_step(machine, base, tokens, rows, columns):
    """Return a function that makes one training step of stock PEFT on rows of the same size."""
    model = peft_model(base, tokens)
    texts = token_batch(machine, rows, columns)
    labels = torch.full_like(texts.ids, -100)
    labels[:, -1] = texts.ids[:, -1]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)

    def step():
        optimizer.zero_grad()
        batch = {"input_ids": texts.ids, "attention_mask": texts.mask.long(), "labels": labels}
        model(**batch).loss.backward()
        optimizer.step()

    return step


def needed_operations(base, tokens, rows, columns):
    """Return the floating point operations that a step cannot do without.

    The prompt once and every text once, forward and backward with respect to activations alone (the
    base is frozen), and the vocabulary where the label is predicted, which itself is not run.
    """
    config, columns = base.model.config, columns - 1
    # Pairs of positions: causal within the prompt and the texts, and of texts with the prompt.
    pairs = tokens**2 / 2 + rows * (columns * tokens + columns**2 / 2)
    width = config.num_attention_heads * config.head_dim
    attention = 12 * pairs * width * config.num_hidden_layers
    return products_with_weights(base, tokens + rows * columns, rows) + attention


def products_with_weights(base, positions, predictions):
    """Return the operations of all products with weights: layers at positions, head at labels."""
    linear = (part for part in base.model.base_model.modules() if isinstance(part, torch.nn.Linear))
    weights = sum(part.weight.numel() for part in linear)
    return 4 * weights * positions + 4 * base.embedding.numel() * predictions


def matmul_rate(machine):
    """Return the floating point operations per second of a large product in the models' dtype."""
    size = 512 if machine.tiny else 8192
    one = torch.randn(size, size, device=machine.device, dtype=machine.dtype)
    found = machine.compare({"product": lambda: one @ one})
    return 2 * size**3 / found["product"]["seconds"]


def training_steps(machine, shape):
    """Time training steps of softhub and stock PEFT."""
    base, rate, cases = machine.llama(shape), matmul_rate(machine), {}
    for case in map(machine.sized, SHAPES):
        step, _ = own_step(machine, base, *case)
        found = machine.compare({"softhub": step, "peft": peft_step(machine, base, *case)})
        needed = needed_operations(base, *case)
        for side in found.values():
            if "seconds" in side:
                side["share_of_the_bound"] = needed / side["seconds"] / rate
        key = "/".join(map(str, case))
        cases[key] = {**found, "times_peft": ratio(found, "peft", "softhub")}
    reached = map(at_least, STEP_BARS, [each["times_peft"] for each in cases.values()])
    shares = [each["softhub"].get("share_of_the_bound") for each in cases.values()]
    return {
        "matmul_operations_per_second": rate,
        "cases": cases,
        "passed": machine.reached(*reached) if shape == "1B" else None,
        "summary": "times PEFT: "
        + ", ".join(f"{key} {shown(each['times_peft'])}" for key, each in cases.items())
        + "; share of the bound: "
        + ", ".join(map(shown, shares)),
    }


# --- inference ------------------------------------------------------------------------------------


@torch.no_grad()
def prefill(machine, shape):
    """Time the pass over texts behind a cached prompt, without one, and in stock PEFT."""
    base, cases = machine.llama(shape), {}
    for tokens, rows, columns in map(machine.sized, PREFILLS):
        texts = token_batch(machine, rows, columns)
        prefix, model = encode_prefix(base, random_vectors(base, tokens)), peft_model(base, tokens)
        inputs = {"input_ids": texts.ids, "attention_mask": texts.mask.long()}
        stock = {**inputs, "logits_to_keep": 1, "use_cache": True}
        sides = {
            "bare": partial(base.model, **stock),
            "cached": partial(encode_rows, base, [prefix] * rows, texts, keep_cache=True),
            "peft": partial(model, **stock),
        }
        found = machine.compare(sides)
        times = {side: ratio(found, side, "bare") for side in ("cached", "peft")}
        cases[f"{tokens}/{rows}/{columns}"] = {**found, "times_bare": times}
    ratios = [each["times_bare"]["cached"] for each in cases.values()]
    worst = max((each for each in ratios if each is not None), default=None)
    return {
        "cases": cases,
        "passed": machine.reached(None if worst is None else worst <= PREFILL_BAR),
        "summary": "; ".join(
            f"{key}: {shown(each['times_bare']['cached'])} of bare, "
            f"PEFT {shown(each['times_bare']['peft'])}"
            for key, each in cases.items()
        ),
    }


@torch.no_grad()
def many_prompts(machine, shape):
    """Time batches in which every row has a prompt of its own, against one prompt for all."""
    base, cases = machine.llama(shape), {}
    for count in machine.sized(MANY):
        texts = token_batch(machine, count, 64)
        prefixes = [encode_prefix(base, random_vectors(base, 20, seed=n)) for n in range(count)]
        encode = partial(encode_rows, base, rows=texts, keep_cache=True)
        sides = {"one": [prefixes[0]] * count, "many": prefixes}
        found = machine.compare({name: partial(encode, each) for name, each in sides.items()})
        cases[str(count)] = {**found, "speed_of_one": ratio(found, "one", "many")}
    speeds = {count: each["speed_of_one"] for count, each in cases.items()}
    return {
        "cases": cases,
        "passed": machine.reached(at_least(MANY_BAR, cases[str(count)]["speed_of_one"])),
        "summary": ", ".join(
            f"{count} prompts {shown(each)} of one" for count, each in speeds.items()
        ),
    }


def generation(machine, shape):
    """Count the tokens per second of `generate`, of the stock model and with a prompt."""
    base, rows = machine.llama(shape), 8 if machine.tiny else 32
    model, new = PromptModel(base), 8 if machine.tiny else 64
    model.load_prompt(soft_prompt(base, random_vectors(base, 20)), name="prompt")
    texts = token_batch(machine, rows, 64)
    words = [" ".join(f"w{n}" for n in row) for row in texts.ids.tolist()]
    options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False}
    inputs = {"input_ids": texts.ids, "attention_mask": texts.mask.long(), "pad_token_id": 0}
    sides = {
        "stock": partial(base.model.generate, **inputs, **options),
        "bare": partial(model.generate, words, batch_size=rows, **options),
        "prompt": partial(model.generate, words, prompt="prompt", batch_size=rows, **options),
    }
    with torch.no_grad():
        found = machine.compare(sides, rounds=1 if machine.tiny else 2)
    rates = {
        name: rows * new / each["seconds"] for name, each in found.items() if "seconds" in each
    }
    return {
        "rows": rows,
        "new_tokens": new,
        "sides": found,
        "tokens_per_second": rates,
        "passed": None,
        "summary": ", ".join(f"{name} {rate:.0f} tokens/s" for name, rate in rates.items()),
    }
