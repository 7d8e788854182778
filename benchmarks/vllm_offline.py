"""Generate over a table with vLLM's offline engine and soft prompts, and check every text.

python benchmarks/vllm_offline.py [--rows 400]

Runs in an environment with vLLM (docs/vllm.md), on the CPU build and the demo base. Two tasks share
one call. Every text is compared with plain transformers on the assembled row.
"""

import os
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from record import DEMO_BASE, DEMO_NAME, command_line, write
from vllm_reference import demo_base, greedy, random_prompt, verdict

from softhub.serving.vllm.launch import BLOCK_SIZE
from softhub.serving.vllm.offline import OfflinePrompt
from softhub.tasks import Task, Template
from tests.prompts import TEXTS

NEW_TOKENS = 12
TEMPLATES = {32: "{text} In short:", 100: "{text}\nReply:"}  # by number of virtual tokens


def task_of(template):
    return Task(
        name="write",
        kind="generation",
        template=Template(template),
        generation={"max_new_tokens": NEW_TOKENS},
    )


def generate(folder, saved, texts):
    """Return the answers of vLLM for each task, and the seconds of the call."""
    from vllm import LLM

    llm = LLM(
        str(folder),
        dtype="float32",
        enforce_eager=True,
        enable_prompt_embeds=True,
        block_size=BLOCK_SIZE,
        generation_config="vllm",
        max_model_len=1024,
    )
    prompts = [OfflinePrompt(llm, path) for path in saved]
    rows = [row for prompt in prompts for row in prompt.rows(texts)]
    options = [prompt.sampling_params() for prompt in prompts for _ in texts]
    started = time.perf_counter()
    outputs = llm.generate(rows, options, use_tqdm=False)
    return [each.outputs[0] for each in outputs], time.perf_counter() - started


def main():
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, default=400, help="rows of each task")
    parser.add_argument("--base", default=DEMO_BASE, help="GGUF file, or folder of the base")
    options = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    folder, base = demo_base(options.base)
    texts = [f"{n}. {TEXTS[n % len(TEXTS)]}" for n in range(options.rows)]
    tasks = {tokens: task_of(template) for tokens, template in TEMPLATES.items()}
    prompts = [random_prompt(base, tokens, task, seed=tokens) for tokens, task in tasks.items()]
    with TemporaryDirectory() as work:
        saved = [prompt.save_pretrained(Path(work) / str(i)) for i, prompt in enumerate(prompts)]
        answers, seconds = generate(folder, saved, texts)
    verdicts, texts_alike, tokenizer = [], 0, base.tokenizer
    pairs = list(zip(prompts, tasks.values(), strict=True))
    jobs = [(prompt, task, text) for prompt, task in pairs for text in texts]
    for (prompt, task, text), answer in zip(jobs, answers, strict=True):
        ids = tokenizer(task.template.render({"text": text}))["input_ids"]
        expected = greedy(base, prompt.vectors, ids, NEW_TOKENS, (tokenizer.eos_token_id,))
        verdicts.append(verdict(expected, answer.token_ids))
        made = tokenizer.decode(expected[0], skip_special_tokens=True)
        # Of a character that the last token cuts, vLLM returns nothing and transformers a mark.
        texts_alike += answer.text == made.rstrip("\ufffd")
    figures = {
        "vllm-cpu": version("vllm-cpu"),
        "base": DEMO_NAME,
        "virtual tokens": list(TEMPLATES),
        "rows": len(jobs),
        "new tokens of a row": NEW_TOKENS,
        "seconds of generation": round(seconds, 1),
        **{kind: verdicts.count(kind) for kind in ("equal", "near tie", "wrong")},
        "equal texts": texts_alike,
    }
    write("vllm_offline", figures)


if __name__ == "__main__":
    main()
