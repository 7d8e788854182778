"""What do rows with a prompt or a prefix cost, compared with rows of the bare base?

    python benchmarks/cached_prompts.py

Reviews are classified on the demo base model without a prompt, with a prompt, with a prefix, and in
batches that mix all three. Keys and values are cached before the first round. All sides take turns
in each round, in another order each time; a ratio is that of one round, and the median is reported.
The target is at most 1.10 times the bare base.

On Linux, glibc returns the memory of large activations to the system after each layer, and fetching
it again takes time. The results record the variables of the environment that prevent it:

    MALLOC_TRIM_THRESHOLD_=2000000000 MALLOC_MMAP_THRESHOLD_=2000000000 \\
        python benchmarks/cached_prompts.py --name cached_prompts_kept_memory
"""

import os
import random
import statistics
import time

import torch
from record import DEMO_BASE, command_line, write

from softhub import PromptModel, SoftPrompt, Task, load_base
from softhub.model.prefix import prefix_shape, vectors_of_prompt
from softhub.training.provenance import manifest_of

TASK, TEXTS, ROUNDS, LENGTHS = "recipes/tasks/sentiment.yaml", 32, 7, (20, 100)


def prompts_of(base, task, tokens):
    """Return a prompt of random tokens, and the prefix that has its keys and values."""
    draw = torch.Generator().manual_seed(tokens)
    with torch.no_grad():
        vectors = base.embed(torch.randint(100, 40_000, (tokens,), generator=draw)).float()
    deep, shape = vectors_of_prompt(base, vectors), prefix_shape(base)
    return {
        "prompt": SoftPrompt(vectors, manifest_of(base, vectors, task=task, provenance={})),
        "prefix": SoftPrompt(deep, manifest_of(base, deep, task=task, provenance={}, prefix=shape)),
    }


def compare(base, task, texts, tokens):
    """Return the seconds of each side in each round."""
    model = PromptModel(base)
    for name, prompt in prompts_of(base, task, tokens).items():
        model.load_prompt(prompt, name=name)
    mixed = [(None, "prompt", "prefix")[index % 3] for index in range(len(texts))]
    sides = {"bare": None, "prompt": "prompt", "prefix": "prefix", "mixed": mixed}
    for prompt in sides.values():  # computes and caches keys and values
        model.predict(texts, prompt=prompt, task=task)
    seconds = {side: [] for side in sides}
    for round_number in range(ROUNDS):
        for side in random.Random(round_number).sample(list(sides), len(sides)):
            began = time.perf_counter()
            model.predict(texts, prompt=sides[side], task=task, batch_size=TEXTS)
            seconds[side].append(time.perf_counter() - began)
    return seconds


def summary(seconds):
    """Return the median of each side's ratio to the bare base, with the lowest and the highest."""
    found = {}
    for side, own in seconds.items():
        ratios = [each / bare for each, bare in zip(own, seconds["bare"], strict=True)]
        found[side] = {
            "seconds": own,
            "ratio": statistics.median(ratios),
            "range": [min(ratios), max(ratios)],
        }
    return found


def main():
    parser = command_line(__doc__)
    parser.add_argument("--name", default="cached_prompts", help="name of the results")
    options = parser.parse_args()
    base, task = load_base(DEMO_BASE), Task.from_file(TASK)
    texts = [example.row for example in task.load("test", limit=TEXTS)]
    lengths = {str(tokens): summary(compare(base, task, texts, tokens)) for tokens in LENGTHS}
    malloc = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
    figures = {"texts": TEXTS, "rounds": ROUNDS, "malloc": malloc, "lengths": lengths}
    write(options.name, figures)


if __name__ == "__main__":
    main()
