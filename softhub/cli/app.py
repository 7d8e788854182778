"""The `softhub` application: every verb with its section of the help and its examples."""

from collections.abc import Callable
from typing import Annotated

import typer

import softhub
from softhub.cli import recipes
from softhub.cli.compare import compare
from softhub.cli.distill import distill
from softhub.cli.environment import env
from softhub.cli.evaluate import calibrate, evaluate
from softhub.cli.export import export
from softhub.cli.help import Verb, Verbs
from softhub.cli.hub import info, list_, pull, push
from softhub.cli.hub_account import login, whoami
from softhub.cli.hub_history import delete, deprecate, diff, lock, log, tag, untag, verify
from softhub.cli.hub_search import search, similar
from softhub.cli.init_task import init_task
from softhub.cli.inspect import inspect
from softhub.cli.options import can_be_quiet
from softhub.cli.output import emit
from softhub.cli.predict import generate, predict
from softhub.cli.runs import runs
from softhub.cli.serve import serve
from softhub.cli.train import train

SECTIONS: dict[str, tuple[Callable[..., None], ...]] = {
    "Train": (init_task, train, evaluate, calibrate, compare, distill, runs),
    "Use": (predict, generate, serve, export),
    "Hub": (
        *(push, pull, list_, search, info, log, diff, tag, untag),
        *(lock, verify, deprecate, delete, login, whoami),
    ),
    "Inspect": (inspect, similar, env),
}
ALIASES: dict[str, Callable[..., None]] = {"ls": list_, "rm": delete}
TAKES_ANY_FLAG = (train, compare)  # the recipe parses the flags
EXAMPLES = """\
softhub init-task reviews.csv --split -o reviews/task.yaml --base ./my-base
softhub init-task train.jsonl --dev dev.jsonl --test test.jsonl --label mood
softhub init-task stanfordnlp/sst2 -o sst2.yaml
softhub train --config recipes/configs/sentiment.yaml
softhub train --config recipes/configs/sentiment.yaml --max-steps 60 --seed 1
softhub train --config my.yaml --recipe my-recipes/classification.py
softhub train --task task.yaml --base-model MODEL --output-dir runs/mine
softhub evaluate runs/sentiment/adapter --base ./my-base --task sentiment.yaml
softhub evaluate me/triage --base ./my-base --task triage.yaml --per-class
softhub calibrate runs/triage/adapter --base ./my-base --task triage.yaml
softhub calibrate runs/triage/adapter --base ./my-base --task triage.yaml --accuracy 0.95
softhub compare --config recipes/configs/compare_sentiment.yaml
softhub compare --config my.yaml --virtual-tokens 5 20 --seeds 0 1 2
softhub compare --report runs/compare-sentiment
softhub distill --task task.yaml --base ./my-base --shots 8 --output-dir runs/short
softhub distill --task task.yaml --base ./my-base --template 3 --tokens 10
softhub distill --task task.yaml --base ./my-base --template "$(cat instructions.txt)"
softhub distill --task chat.yaml --base ./my-base --system --texts questions.txt
softhub distill --task task.yaml --base ./my-base --teacher me/sentiment-100
softhub runs
softhub runs --task sentiment --sort score
softhub runs runs/sentiment --json
softhub predict me/sentiment 'Worth every penny.' --base ORG/BASE-MODEL
softhub predict runs/sentiment/adapter --input reviews.txt --base ./my-base
softhub predict me/sentiment --input reviews.txt --output labels.csv
softhub predict me/sentiment < reviews.txt   (base model from $SOFTHUB_BASE)
softhub generate me/summary 'A long text …' --base ./my-base --max-new-tokens 40
softhub generate me/summary --input texts.jsonl --json > summaries.jsonl
softhub serve ./my-base --prompts mood=runs/sentiment/adapter
softhub serve ./my-base --prompts softhub.lock --hub local --allow 'me/*'
softhub serve ./my-base --prompts softhub.lock --host 0.0.0.0 --api-keys keys.txt
softhub export me/sentiment --to cartridge --base ./my-base -o sentiment-cartridge
softhub export runs/sentiment/adapter --to npy -o sentiment.npy
softhub push runs/sentiment/adapter me/sentiment --tag v1 -m 'First release'
softhub push runs/sentiment/adapter me/sentiment --hub local:/shared/hub
softhub pull me/sentiment
softhub pull me/sentiment --revision v1 --to adapters/sentiment
softhub pull --lock softhub.lock --to prompts
softhub list
softhub list | cut -f1   (tab-separated when piped)
softhub search reviews --base ORG/BASE-MODEL
softhub search --task sentiment --metric accuracy --min-score 0.9 --sort size
softhub info me/sentiment
softhub info runs/sentiment/adapter
softhub log me/sentiment
softhub diff me/sentiment v1
softhub diff me/sentiment v1 v2
softhub tag me/sentiment v1
softhub tag YOUR-NAME/sentiment best --revision v1 --hub hf
softhub untag me/sentiment best
softhub lock mood=me/sentiment@v1 triage=me/triage
softhub verify me/sentiment
softhub deprecate me/sentiment --reason 'Test examples leaked into training.'
softhub deprecate me/sentiment --reason 'Outdated.' --replacement me/sentiment-2
softhub delete me/sentiment
softhub login
softhub whoami
softhub inspect me/sentiment --base ./my-base
softhub inspect runs/sentiment/adapter --compare me/sentiment --html inspection.html
softhub similar me/sentiment
softhub env
"""

app = typer.Typer(
    name="softhub",
    cls=Verbs,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 200},
    epilog="\b\nTypical workflow:\n"
    "  softhub recipes copy\n"
    "  python recipes/data/demo_base.py && python recipes/data/amazon_reviews.py\n"
    "  softhub train --config recipes/configs/sentiment.yaml\n"
    "  softhub push runs/sentiment/adapter me/sentiment --tag v1\n"
    "  softhub predict me/sentiment 'Worth every penny.' --base MODEL",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        emit(softhub.__version__)
        raise typer.Exit


@app.callback()
def softhub_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Train, evaluate, share and use soft prompts for frozen language models."""


def _examples(name: str) -> str:
    """Return an epilog with the examples of a verb, which are not rewrapped."""
    lines = [line for line in EXAMPLES.splitlines() if line.split()[1] == name]
    return "\n  ".join(["\b\nExamples:", *lines])


def _add_verbs() -> None:
    app.add_typer(recipes.app, name="recipes", cls=Verbs, rich_help_panel="Train")
    for section, verbs in SECTIONS.items():
        for verb in verbs:
            name = verb.__name__.rstrip("_").replace("_", "-")  # `list` is a builtin
            flags = verb in TAKES_ANY_FLAG
            app.command(
                name,
                cls=Verb,
                rich_help_panel=section,
                epilog=_examples(name),
                context_settings={"allow_extra_args": flags, "ignore_unknown_options": flags},
            )(can_be_quiet(verb))
    for alias, function in ALIASES.items():
        app.command(alias, cls=Verb, hidden=True)(can_be_quiet(function))


_add_verbs()
