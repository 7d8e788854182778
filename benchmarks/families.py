"""Is each model family of transformers exact here, or refused in a sentence? All that build small.

    python benchmarks/families.py                       # half an hour; resumes
    python benchmarks/families.py --only GPTNeoForCausalLM MptForCausalLM
    python benchmarks/families.py --tables              # run nothing, write the table only

Every decoder and encoder-decoder of the installed transformers that can be built with small sizes
is built, with random weights. A batch mixes prompts of three and seven virtual tokens with rows of
the bare base, and texts that are shorter and longer than local windows and chunks. `predict`,
`generate` and `target_logprobs` run with it, and the loss of a training step with one prompt; then
`fit` takes two steps. Each row is compared with plain transformers for that row alone: from ids for
the bare base, and otherwise from the prompt and the embedded text. The largest deviation of a
log-probability is relative to the largest one, if that is above 1.
"""

import copy
import gc
import json
import multiprocessing
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import torch
import transformers
from peft import PromptTuningConfig
from record import RESULTS, command_line, keep_row, read_rows, write
from small_models import NotSmallError, build_tokenizer, families, small_model

import softhub
from softhub.errors import SoftHubError
from softhub.model.assembly import pad_rows
from softhub.training.module import PromptTuningModule

TOLERANCE = 2e-4
SECONDS = 240  # for one family
NEW_TOKENS = 3
PROMPTS = {"three": 3, "seven": 7}
ROWS = ((None, 2), ("three", 5), ("seven", 28), (None, 25), ("three", 22), (None, 80))
WORDS = {"a": " w70", "b": " w71 w72 w73"}
PAGE = Path("docs/families.md")
SHORT = {"exact": "exact", "refused": "refused", "WRONG": "**wrong**", "TRACEBACK": "**error**"}
OPERATIONS = ("predict", "generate", "logprobs", "step", "fit")


def texts():
    drawn = torch.Generator().manual_seed(0)
    ids = [torch.randint(100, 390, (length,), generator=drawn).tolist() for _, length in ROWS]
    return ids, [" ".join(f"w{index}" for index in row) for row in ids]


IDS, TEXTS = texts()
NAMES = [name for name, _ in ROWS]
TARGETS = (" w80 w81", " w82", " w83 w84 w85 w86", " w87 w88 w89", " w90", " w91 w92")
TASK = softhub.Task(template="{text}", labels=WORDS)
WRITING = softhub.Task(template="{text}", kind="generation")


class Reference:
    """Plain transformers, one row at a time."""

    def __init__(self, base, vectors):
        self.base, self.model, self.vectors = base, base.model, vectors

    def inputs(self, row, more=()):
        """Return what a row alone is to the model, with tokens behind it."""
        name, ids = NAMES[row], IDS[row]
        if self.base.is_encoder_decoder:
            ids, decoder = [*ids, *self.end], [[self.base.start_id, *more]]
            options = {"decoder_input_ids": torch.tensor(decoder)}
        else:
            ids, options = [*ids, *more], {}
        tokens = torch.tensor([ids])
        if name is None:
            return {"input_ids": tokens, **options}
        embedded = torch.cat([self.vectors[name], self.base.embed(tokens)[0]]).unsqueeze(0)
        return {"inputs_embeds": embedded, **options}

    end = ()

    def logprobs(self, row, answer):
        """Return the log-probabilities of an answer's tokens."""
        inputs = self.inputs(row, answer[:-1])
        masked = inputs.get("input_ids", inputs.get("inputs_embeds"))
        mask = torch.ones(masked.shape[:2], dtype=torch.int64)
        logits = self.model(**inputs, attention_mask=mask, use_cache=False).logits[0]
        found = logits[-len(answer) :].float().log_softmax(-1)
        return found[torch.arange(len(answer)), torch.tensor(answer)]

    def scores(self, row):
        """Return the log-probabilities of the labels among each other."""
        of_word = [self.logprobs(row, answer).sum() for answer in ((70,), (71, 72, 73))]
        return torch.stack(of_word).log_softmax(0)

    def generated(self, row):
        """Return the greedy tokens of the model's own `generate`, and its smallest margin."""
        inputs = self.inputs(row)
        inputs.pop("decoder_input_ids", None)
        mask = torch.ones(next(iter(inputs.values())).shape[:2], dtype=torch.int64)
        options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "num_beams": 1}
        wanted = {"output_logits": True, "return_dict_in_generate": True}
        output = self.model.generate(**inputs, attention_mask=mask, **options, **wanted)
        best = torch.stack(output.logits, dim=1)[0].topk(2).values  # [new, 2]
        found = output.sequences[0, -len(output.logits) :].tolist()
        return found, float((best[:, 0] - best[:, 1]).min())

    def forwarded(self, row):
        """Return the same, of the model's forward for one token after another."""
        found, margin = [], float("inf")
        for _ in range(NEW_TOKENS):
            inputs = self.inputs(row, found)
            masked = inputs.get("input_ids", inputs.get("inputs_embeds"))
            mask = torch.ones(masked.shape[:2], dtype=torch.int64)
            logits = self.model(**inputs, attention_mask=mask, use_cache=False).logits[0, -1]
            best = logits.topk(2)
            margin = min(margin, float(best.values[0] - best.values[1]))
            found.append(int(best.indices[0]))
            if found[-1] == 2:
                break
        return found, margin


def deviation(found, expected):
    size = expected.abs().max().clamp_min(1.0)
    return float(((found - expected).abs().max() / size).nan_to_num(float("inf")))


def predict(model, reference):
    found = model.predict(TEXTS, prompt=NAMES, task=TASK)
    scores = torch.tensor([[p.scores[label] for label in WORDS] for p in found]).log_softmax(1)
    return max(deviation(scores[row], reference.scores(row)) for row in range(len(ROWS)))


def logprobs(model, reference):
    found = model.target_logprobs(TEXTS, TARGETS, prompt=NAMES, task=WRITING)
    ids = [[int(word[1:]) for word in target.split()] + [2] for target in TARGETS]
    alone = [reference.logprobs(row, answer) for row, answer in enumerate(ids)]
    return max(deviation(torch.tensor(a), b) for a, b in zip(found, alone, strict=True))


def generate(model, reference):
    """Compare with `generate` for each row alone; where it takes no embeddings, with `forward`."""
    mixed = NAMES[:]
    try:
        for names in ([None] * len(mixed), mixed):
            NAMES[:] = names
            options = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
            found = model.generate(TEXTS, prompt=names, **options)
            if not all(is_own(reference, row, text) for row, text in enumerate(found)):
                return float("inf")
    finally:
        NAMES[:] = mixed
    return 0.0


def is_own(reference, row, text):
    try:
        tokens, margin = reference.generated(row)
    except ValueError:
        if NAMES[row] is None:
            raise
        tokens, margin = reference.forwarded(row)
    words = " ".join(f"w{token}" for token in tokens if token > 3)  # not special
    return text == words or margin <= 1e-3


def step(model, reference):
    """Compare loss and gradient of a step; float64 tells the rounding of float32 from a fault."""
    error = step_of(model.base, reference)
    if error <= TOLERANCE:
        return error
    exact = copy.deepcopy(model.base.model).double()
    base = softhub.load_base(exact, tokenizer=model.base.tokenizer, name=model.base.name)
    vectors = {name: vector.double() for name, vector in reference.vectors.items()}
    double = Reference(base, vectors)
    double.end = reference.end
    return step_of(base, double)


def step_of(base, reference):
    """Return the deviation of a step in which all rows have one prompt."""
    vectors, candidates = reference.vectors["three"], base.encoder.candidates_of(TASK)
    module = PromptTuningModule(base, vectors, candidates)
    labels = torch.tensor([1] * len(ROWS))
    padded = pad_rows([[*ids, *reference.end] for ids in IDS])
    with module.packed_attention():
        loss = module(padded.ids, padded.mask, labels)["loss"]
        loss.backward()
    start = vectors.clone().requires_grad_()
    alone = Reference(base, {name: start for name in (*PROMPTS, None)})
    alone.end, names = reference.end, NAMES[:]
    NAMES[:] = ["three"] * len(names)
    try:
        expected = torch.stack([-alone.scores(row)[1] for row in range(len(ROWS))]).mean()
        expected.backward()
    finally:
        NAMES[:] = names
    gradient = (module.prompt.grad - start.grad).abs().max() / start.grad.abs().max()
    return max(deviation(loss.detach(), expected.detach()), float(gradient) / 5)


def fit(model, reference):
    rows = [{"text": text, "label": "ab"[row % 2]} for row, text in enumerate(TEXTS)]
    config = PromptTuningConfig(task_type=model.base.task_type, num_virtual_tokens=3)
    with tempfile.TemporaryDirectory() as folder:
        args = softhub.PromptTrainingArguments(
            output_dir=folder, max_steps=2, eval_steps=2, save_steps=2, use_cpu=True, max_restarts=0
        )
        softhub.fit(model.base, TASK, config, {"train": rows, "dev": rows[:2]}, args=args)
    return 0.0


def verdict(operation, model, reference):
    try:
        error = operation(model, reference)
    except SoftHubError as refused:
        return {"verdict": "refused", "reason": str(refused)}
    except Exception as found:
        last = traceback.extract_tb(found.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return {
            "verdict": "TRACEBACK",
            "reason": f"{type(found).__name__}: {found} ({where})"[:400],
        }
    return {"verdict": "exact" if error <= TOLERANCE else "WRONG", "deviation": error}


def how(base):
    """Return the fallbacks in use, for rows within and beyond the shortest window."""
    found = {}
    widths = {"": 0, "beyond": 90}
    for name, width in widths.items():
        rows = base.capabilities.rows(width)
        slower = [] if rows.batching == "padded" else [f"rows {rows.batching or 'refused'}"]
        if not base.is_encoder_decoder:
            slower += [] if rows.shares_keys else ["prompt in each row"]
            slower += [] if rows.continues else ["words recomputed"]
        found[name] = slower
    return found["beyond"]


def as_loaded(model):
    """Return a model that has run no text yet: some keep what they chose for it (BigBird)."""
    fresh = type(model)(model.config).float().eval().requires_grad_(False)
    fresh.load_state_dict(model.state_dict())
    return fresh


def ask(kind, family):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    try:
        model = as_loaded(small_model(kind, family))
        row = {"class": kind, "family": family}
        tokenizer = build_tokenizer()
        for config in (model.config, model.generation_config):
            config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
            if model.config.is_encoder_decoder:
                config.decoder_start_token_id = 0
        for name in (
            "forced_bos_token_id",
            "forced_eos_token_id",
            "max_length",
            "min_length",
            "num_beams",
            "no_repeat_ngram_size",
        ):
            setattr(model.generation_config, name, None)
    except NotSmallError as reason:
        return {"class": kind, "family": family, "not_built": str(reason)}
    except Exception as error:
        return {
            "class": kind,
            "family": family,
            "not_built": f"{type(error).__name__}: {error}"[:200],
        }
    try:
        base = softhub.load_base(model, tokenizer=tokenizer, name=family)
        row["operations"] = operations(base)
        row["slower"] = how(base)
        row["embedding_scale"] = base.capabilities.embedding_scale
    except SoftHubError as refused:
        row["operations"] = {
            name: {"verdict": "refused", "reason": str(refused)} for name in OPERATIONS
        }
    except Exception:
        row["operations"] = {
            name: {"verdict": "TRACEBACK", "reason": traceback.format_exc()[-600:]}
            for name in OPERATIONS
        }
    return row


def operations(base):
    drawn = torch.Generator().manual_seed(2)
    width, size = base.hidden_size, float(base.embed(torch.arange(100, 140)).std())
    vectors = {
        name: size * torch.randn(count, width, generator=drawn) for name, count in PROMPTS.items()
    }
    model, reference = softhub.PromptModel(base), Reference(base, vectors)
    found = {}
    try:
        for name, prompt in vectors.items():
            model.load_prompt(soft_prompt(base, prompt), name=name)
    except SoftHubError as refused:
        # Without prompts: every row is one of the bare base.
        NAMES[:] = [None] * len(ROWS)
        found["prompts"] = {"verdict": "refused", "reason": str(refused)}
    for operation in (predict, generate, logprobs):
        with torch.no_grad():
            found[operation.__name__] = verdict(operation, model, reference)
    for operation in (step, fit):
        found[operation.__name__] = verdict(operation, model, reference)
    return found


def soft_prompt(base, vectors):
    from softhub.adapter.manifest import Manifest

    manifest = Manifest(
        base_model=base.name,
        task_type=base.task_type,
        num_virtual_tokens=vectors.shape[0],
        hidden_size=vectors.shape[1],
        base_revision=None,
        base_quantization=None,
        fingerprint=None,
        task=None,
        provenance={},
        metrics=(),
        license=None,
        files={},
        softhub_version="0.1.0",
    )
    return softhub.SoftPrompt(vectors, manifest)


def run(kind, family):
    """Ask in a process of its own, so that a crash or an endless loop ends one family only."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=lambda: send.send(ask(kind, family)))
    process.start()
    send.close()
    try:
        if not receive.poll(SECONDS):
            return {"class": kind, "family": family, "not_built": f"no answer in {SECONDS} seconds"}
        return receive.recv()
    except EOFError:
        return {"class": kind, "family": family, "not_built": "the process crashed"}
    finally:
        process.kill()
        process.join()


def outcome(row):
    """Return a family's verdicts in one cell for each operation."""
    found = row["operations"]
    return [SHORT[found[name]["verdict"]] for name in OPERATIONS]


def in_words(row):
    """Return the fallbacks and refusals of a family."""
    of_operations = row["operations"].values()
    reasons = {each["reason"] for each in of_operations if each["verdict"] == "refused"}
    worst = max((each.get("deviation", 0.0) for each in of_operations), default=0.0)
    words = [*row.get("slower", ()), *(_why(reason) for reason in sorted(reasons))]
    return "; ".join(dict.fromkeys(words)), worst


def _why(reason):
    return "embeddings are not ids" if "embeddings than" in reason else reason.split(": ", 1)[-1]


def tables(rows):
    """Write the figures and the page of the families that were asked."""
    built = [row for row in rows if "operations" in row]
    verdicts = {
        row["class"]: {each["verdict"] for each in row["operations"].values()} for row in built
    }
    bad = [name for name, found in verdicts.items() if found & {"WRONG", "TRACEBACK"}]
    refusing = [name for name, found in verdicts.items() if "refused" in found and name not in bad]
    counts = {
        "asked": len(rows),
        "of": len(families()),
        "built": len(built),
        "exact": len(built) - len(bad) - len(refusing),
        "exact_or_refused": len(refusing),
        "wrong_or_traceback": bad,
        "not_built": {row["class"]: row["not_built"] for row in rows if "not_built" in row},
    }
    write("families", {**counts, "families": built})
    lines = [
        f"{counts['asked']} of the {counts['of']} classes of decoders and encoder-decoders of "
        f"transformers {transformers.__version__} were tried, and {counts['built']} could be "
        f"built small. {counts['exact']} of these are exact in every use; in "
        f"{counts['exact_or_refused']} more, each use is either exact or refused with a reason of "
        f"one line. In the remaining {len(bad)}, an answer is wrong or an error gives no reason.",
        "",
        "| class | predict | generate | target log-probabilities | training step | fit | how |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(built, key=lambda row: row["class"]):
        words, _ = in_words(row)
        cells = [row["class"], *outcome(row), words.replace("|", "/")]
        lines.append(f"| {' | '.join(cells)} |")
    begin, end = "<!-- families -->", "<!-- end of families -->"
    page = PAGE.read_text()
    before, rest = page.split(begin)
    table = "\n".join(lines)
    PAGE.write_text(f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}")


def main():
    parser = command_line(__doc__)
    parser.add_argument("--only", nargs="+", metavar="CLASS")
    parser.add_argument("--tables", action="store_true")
    options = parser.parse_args()
    path = RESULTS / "families.jsonl"
    if not options.tables:
        ask("LlamaForCausalLM", "llama")  # imports what every process then has from the start
        gc.collect()
        gc.freeze()
    rows = {row["class"]: row for row in read_rows(path)}
    for kind, family in families().items():
        if options.tables or (options.only and kind not in options.only):
            continue
        if kind in rows and not options.only:
            continue
        row = run(kind, family)
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows[kind] = row
        keep_row(path, row)
    tables([*rows.values()])


if __name__ == "__main__":
    main()
