"""The app: every verb in the order of the road, with its examples."""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import softhub
from softhub.cli import (
    compare,
    distill,
    environment,
    evaluate,
    hub,
    hub_account,
    hub_history,
    hub_search,
    init_task,
    inspect,
    predict,
    recipes,
    runs,
    train,
)
from softhub.cli.output import emit
from softhub.experiments.console import INTERRUPTED


class Verbs(TyperGroup):
    """The verbs, of which any may be interrupted."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; on Ctrl-C leave one line and the code that shells expect."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="softhub",
    cls=Verbs,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Soft prompts as kilobyte adapters: train, judge, share and use them.",
    epilog="\b\nThe road:\n"
    "  softhub recipes copy\n"
    "  softhub train --config recipes/configs/sentiment.yaml\n"
    "  softhub push runs/sentiment/adapter me/sentiment --tag v1\n"
    "  softhub predict me/sentiment 'Worth every penny.' --base MODEL",
)


def examples(*lines: str) -> str:
    """Return an epilog that shows command lines as they are."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


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
    """Soft prompts as kilobyte adapters: train, judge, share and use them."""


app.add_typer(recipes.app, name="recipes")
app.command(
    epilog=examples(
        "softhub init-task reviews.csv --split -o reviews/task.yaml --base ./my-base",
        "softhub init-task train.jsonl --dev dev.jsonl --test test.jsonl --label mood",
        "softhub init-task stanfordnlp/sst2 -o sst2.yaml",
    ),
)(init_task.init_task)
app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog=examples(
        "softhub train --config recipes/configs/sentiment.yaml",
        "softhub train --config recipes/configs/sentiment.yaml --max_steps 60 --seed 1",
        "softhub train --config my.yaml --recipe my-recipes/classification.py",
        "softhub train --task task.yaml --base_model MODEL --output_dir runs/mine",
    ),
)(train.train)
app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog=examples(
        "softhub compare --config recipes/configs/compare_sentiment.yaml",
        "softhub compare --config my.yaml --virtual_tokens 5 20 --seeds 0 1 2",
        "softhub compare --report runs/compare-sentiment",
    ),
)(compare.compare)
app.command(
    epilog=examples(
        "softhub runs",
        "softhub runs --task sentiment --sort score",
        "softhub runs runs/seeds --by-seed",
        "softhub runs runs/sentiment --trace --json",
    ),
)(runs.runs)
app.command(
    epilog=examples(
        "softhub distill --task task.yaml --base ./my-base --shots 8 --output-dir runs/short",
        "softhub distill --task task.yaml --base ./my-base --template 3 --tokens 10",
        'softhub distill --task task.yaml --base ./my-base --template "$(cat instructions.txt)"',
        "softhub distill --task chat.yaml --base ./my-base --system --texts questions.txt",
        "softhub distill --task task.yaml --base ./my-base --teacher me/sentiment-100",
    ),
)(distill.distill)
app.command(
    epilog=examples(
        "softhub predict me/sentiment 'Worth every penny.' --base ORG/BASE-MODEL",
        "softhub predict runs/sentiment/adapter --file reviews.txt --base ./my-base",
        "softhub predict me/sentiment --revision v1 --file rows.jsonl --json > labels.jsonl",
        "cat reviews.txt | softhub predict me/sentiment --file -   (the base in $SOFTHUB_BASE)",
    ),
)(predict.predict)
app.command(
    epilog=examples(
        "softhub generate me/summary 'A long text …' --base ./my-base --max-new-tokens 40",
        "softhub generate me/summary --file texts.jsonl --json > summaries.jsonl",
    ),
)(predict.generate)
app.command(
    epilog=examples(
        "softhub evaluate runs/sentiment/adapter --base ./my-base --task sentiment.yaml",
        "softhub evaluate me/triage --base ./my-base --task triage.yaml --per-class",
    ),
)(evaluate.evaluate)
app.command(
    epilog=examples(
        "softhub calibrate runs/triage/adapter --base ./my-base --task triage.yaml",
        "softhub calibrate runs/triage/adapter --base ./my-base --task triage.yaml --accuracy 0.95",
    ),
)(evaluate.calibrate)
app.command(
    epilog=examples(
        "softhub inspect me/sentiment --base ./my-base",
        "softhub inspect runs/sentiment/adapter --compare me/sentiment --html inspection.html",
    ),
)(inspect.inspect)
app.command(
    epilog=examples(
        "softhub push runs/sentiment/adapter me/sentiment --tag v1 -m 'First good one'",
        "softhub push runs/sentiment/adapter me/sentiment --hub local:/shared/hub",
    ),
)(hub.push)
app.command(
    epilog=examples(
        "softhub pull me/sentiment",
        "softhub pull me/sentiment --revision v1 --to adapters/sentiment",
        "softhub pull --lock softhub.lock --to prompts",
    ),
)(hub.pull)
app.command(
    "list",
    epilog=examples(
        "softhub list",
        "softhub list --json | python -m json.tool",
        "softhub list | cut -f1   (tab-separated when piped)",
    ),
)(hub.list_adapters)
app.command("ls", hidden=True)(hub.list_adapters)
app.command(
    epilog=examples(
        "softhub info me/sentiment",
        "softhub info me/sentiment --revision v1 --json",
        "softhub info runs/sentiment/adapter",
    ),
)(hub.info)
app.command(
    epilog=examples(
        "softhub search reviews --base ORG/BASE-MODEL",
        "softhub search --task sentiment --metric accuracy --min-score 0.9 --sort size",
        "softhub search --author me --hub hf --json",
    ),
)(hub_search.search)
app.command(
    epilog=examples(
        "softhub similar me/sentiment",
        "softhub similar runs/sentiment/adapter --limit 3 --json",
    ),
)(hub_search.similar)
app.command(epilog=examples("softhub log me/sentiment", "softhub log me/sentiment --json"))(
    hub_history.log
)
app.command(epilog=examples("softhub diff me/sentiment v1", "softhub diff me/sentiment v1 v2"))(
    hub_history.diff
)
app.command(
    epilog=examples(
        "softhub tag me/sentiment v1",
        "softhub tag me/sentiment best --revision v1 --hub hf",
    ),
)(hub_history.tag)
app.command(epilog=examples("softhub untag me/sentiment best"))(hub_history.untag)
app.command(epilog=examples("softhub verify me/sentiment"))(hub_history.verify)
app.command(
    epilog=examples(
        "softhub deprecate me/sentiment --reason 'Trained on a leaked split.'",
        "softhub deprecate me/sentiment --reason 'Old.' --replacement me/sentiment-2",
    ),
)(hub_history.deprecate)
app.command(epilog=examples("softhub delete me/sentiment", "softhub rm me/sentiment --yes"))(
    hub_history.delete
)
app.command("rm", hidden=True)(hub_history.delete)
app.command(
    epilog=examples(
        "softhub lock mood=me/sentiment@v1 triage=me/triage",
        "softhub pull --lock softhub.lock --to prompts",
    ),
)(hub_history.lock)
app.command(epilog=examples("softhub login"))(hub_account.login)
app.command(epilog=examples("softhub whoami", "softhub whoami --hub hf"))(hub_account.whoami)
app.command(epilog=examples("softhub env", "softhub env --json"))(environment.env)
