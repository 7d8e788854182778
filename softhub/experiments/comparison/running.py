"""`compare`: run the rows of a comparison that are still missing, and write its report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from softhub.errors import TrainingInterrupted
from softhub.evaluation.evaluate import select_metrics
from softhub.evaluation.preflight import check_evaluation
from softhub.experiments.comparison.methods import jobs
from softhub.experiments.comparison.processes import of_main_process
from softhub.experiments.comparison.results import Results, save_context, write_results
from softhub.experiments.comparison.setup import ComparisonSetup
from softhub.experiments.comparison.store import RowStore
from softhub.model.base import BaseModel
from softhub.model.loading import load_base
from softhub.tasks import Example, SplitsLike, Task, dataset_hash
from softhub.terminal import phase
from softhub.training import PromptTrainingArguments

logger = logging.getLogger("softhub")


def compare(
    base: str | Callable[[], BaseModel],
    task: Task,
    data: SplitsLike,
    *,
    args: PromptTrainingArguments | None = None,
    **options: Any,
) -> Results:
    """Compare soft prompts with hard prompts, LoRA and full fine-tuning on one task.

    Each row is saved to `args.output_dir` as soon as it has been computed, and existing rows are
    not computed again, so an interrupted comparison can be resumed.

    Args:
        base: Hub id, local folder or `.gguf` file of the base model, or a function that loads it:
            methods that change its weights load it again.
        task: The task.
        data: The splits, or what `Task.to_splits` turns into them.
        args: Training arguments; each run has its own seed, and a folder in `output_dir`.
        **options: Fields of `ComparisonOptions`: `methods`, `seeds`, `virtual_tokens`, …

    Returns:
        The results, which have also been written to `output_dir`.

    Raises:
        ConfigError: The folder contains another comparison, or a method is unknown; or as in
            `select_metrics`.
        TrainingInterrupted: Ctrl-C was pressed.
    """
    load = partial(load_base, base) if isinstance(base, str) else base
    args = args or PromptTrainingArguments()
    splits = task.to_splits(data)
    setup = ComparisonSetup(task=task, data=splits, load=load, args=args, **options)
    try:
        run_jobs(setup)
    except (KeyboardInterrupt, TrainingInterrupted) as stopped:
        raise TrainingInterrupted(
            "Interrupted: run the same command again; finished rows are kept."
        ) from stopped
    return write_results(args.output_dir)


def run_jobs(setup: ComparisonSetup) -> None:
    """Compute and save every row that is missing.

    Raises:
        ConfigError: The folder contains another comparison, or rows with other options.
        DatasetError: A row is too long even without its text; names its place.
        TaskError: A template or the longest prompt leaves no room for a text.
    """
    wanted = jobs(setup)
    metrics = select_metrics(setup.task, run_code=setup.run_generated_code, answers_only=True)
    check_evaluation(
        setup.base, setup.task, setup.data, metrics, virtual_tokens=setup.most_virtual_tokens
    )
    store = RowStore(setup.args.output_dir)
    store.open(conditions(setup))
    rows = store.rows()
    for job in wanted:
        job.check_options(rows, setup.args.output_dir)
    save_context(store.folder, setup.task, setup.data.test)
    for number, job in enumerate(wanted, start=1):
        name = " ".join(str(part) for part in job.key if part not in ("", None))
        # Another run may have added it meanwhile.
        if of_main_process(job.key in {row.key for row in store.rows()}):
            continue
        with phase(f"[{number}/{len(wanted)}] {name}"):
            row = job.run()
        store.add(row)
        scores = ", ".join(f"{metric} {value:.3f}" for metric, value in row.metrics.items())
        logger.warning("[%d/%d] %s: %s", number, len(wanted), name, scores)


def conditions(setup: ComparisonSetup) -> dict[str, Any]:
    """Return the conditions that all rows of a comparison share."""
    task, base = setup.task, setup.base
    return {
        "task": task.to_record(),
        "metrics": list(select_metrics(task, run_code=setup.run_generated_code, answers_only=True)),
        "base": {
            "name": base.name,
            "revision": base.revision,
            "quantization": base.quantization,
            "parameters": sum(p.numel() for p in base.model.parameters()),
            "bytes": sum(p.numel() * p.element_size() for p in base.model.parameters()),
        },
        "data": {name: _split_record(examples) for name, examples in setup.data._asdict().items()},
        "training": {
            **setup.args.to_provenance(),
            "init": setup.init,
        },
    }


def _split_record(examples: Sequence[Example]) -> Mapping[str, Any]:
    groups = {example.group for example in examples}
    return {
        "examples": len(examples),
        "groups": None if groups == {None} else len(groups),
        "sha256": dataset_hash(examples),
    }
