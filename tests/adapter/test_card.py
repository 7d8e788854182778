"""The card: true metadata, code that runs, and nothing that a stranger's text can break out of."""

import io
import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from softhub.adapter.card.markdown import block, cell, code, line, one_line
from softhub.adapter.card.render import ADAPTER, render_card
from softhub.adapter.card.terms import license_of, terms_of
from softhub.adapter.manifest import Manifest, PrefixShape, RecordedMetric
from softhub.model.prompt import SoftPrompt
from tests.hostile.sound import TASK_RECORD, manifest, manifest_fields, metric_record
from tests.tiny import HIDDEN_SIZE

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

PAYLOADS = [
    "---\nlicense: mit\n---\n",
    "\n---\n\n# Owned",
    "x: y # z",
    "x: [1, {a: b}]",
    "'\"`",
    "!!python/object/apply:os.system [id]",
    "&anchor *alias",
    "%YAML 1.2",
    "yes",
    "1e-4",
    "2024-01-01",
    "null",
    "a | b | c |",
    "```\n# Owned\n```",
    "~~~\n# Owned",
    "``````````",
    "` <b>`",
    "<script>alert(1)</script>",
    "<!-- -->",
    "<img src=x onerror=alert(1)>",
    "[here](javascript:alert(1))",
    "![](https://evil.example/pixel.png)",
    "[ref]: https://evil.example",
    "<https://evil.example>",
    "&lt;b&gt; &#x1b;",
    "# Owned",
    "Owned\n=====",
    "- a\n- b",
    "1. a",
    "> a",
    "    code",
    "**bold** _it_ ~~no~~",
    "\\",
    "a\\|b",
    "a\u202eb\u2066c",
    "a\u2028b\u2029c",
    "{{ 7 * 7 }}{% raw %}",
    "@everyone",
    "\u200b# Owned",
    "x" * 5_000,
]


def _record(**changes: Any) -> dict[str, Any]:
    return {**TASK_RECORD, **changes}


def _split(card: str) -> tuple[dict[str, Any], str]:
    """Return the front matter as YAML reads it, and the body, cut as the Hub cuts them."""
    _, block_text, body = re.split(r"^---\n", card, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(block_text), body


def _walk(tokens: list[Token]) -> list[Token]:
    return [found for token in tokens for found in (token, *_walk(token.children or []))]


def _structure(card: str) -> list[tuple[str, str]]:
    """Return the kinds of all elements of the body, with links' targets, without their words."""
    _, body = _split(card)
    kept = []
    for token in _walk(MARKDOWN.parse(body)):
        if token.type not in ("text", "inline", "softbreak"):
            kept.append((token.type, str(token.attrs.get("href") or token.info)))
    return kept


def _words(card: str) -> str:
    """Return the words and code of the body as a reader sees them."""
    _, body = _split(card)
    return "\n".join(token.content for token in _walk(MARKDOWN.parse(body)) if token.content)


def test_the_metadata_reads_back_with_huggingface_hubs_own_parser() -> None:
    card = ModelCard(render_card(manifest()))
    card.validate = None  # the parser alone: the Hub's validation needs a network
    data = card.data
    assert data.library_name == "peft"
    assert data.base_model == "org/base"
    assert data.to_dict()["base_model_relation"] == "adapter"
    assert data.pipeline_tag == "text-classification"
    assert data.license == "apache-2.0"
    assert data.language == "en"
    assert data.datasets == ["org/reviews"]
    assert data.tags == [
        "softhub",
        "soft-prompt",
        "prompt-tuning",
        "sentiment",
        "base_model:adapter:org/base",
    ]
    assert data.model_name == "sentiment"
    (result,) = data.eval_results
    assert (result.task_type, result.dataset_type) == ("text-classification", "org/reviews")
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.93)
    assert result.dataset_split == "test"


def test_several_metrics_and_splits_all_reach_the_model_index() -> None:
    metrics = tuple(
        RecordedMetric(**metric_record(name=name, split=split, value=value))
        for name, split, value in [
            ("accuracy", "dev", 0.9),
            ("accuracy", "test", 0.8),
            ("macro_f1", "test", 0.7),
        ]
    )
    results = ModelCard(render_card(manifest(metrics=metrics))).data.eval_results
    found = [(result.metric_type, result.dataset_split, result.metric_value) for result in results]
    assert found == [(metric.name, metric.split, metric.value) for metric in metrics]


def test_says_what_a_person_wants_to_know() -> None:
    words = _words(render_card(manifest(base_revision="v2", base_quantization="gguf-q4_1")))
    for part in (
        "sentiment: a soft prompt for base",
        "Sentiment of customer reviews.",
        "org/base",
        "v2",
        "gguf-q4_1",
        "Review: {text}\nSentiment:",
        '" bad"',
        "1,300 examples",
        "0.930",
        "(0.910 to 0.950)",
        "zero-shot",
        "0.880",
        "apache-2.0",
        "org/reviews",
        "500 examples",
        "PeftModel.from_pretrained",
        "softhub refuses to load it, PEFT alone does not notice",
    ):
        assert part in words, part


def test_baselines_stand_in_the_table_of_their_metric() -> None:
    metrics = (
        RecordedMetric(**metric_record(baselines={"majority": 0.6})),
        RecordedMetric(
            **metric_record(name="macro_f1", low=None, high=None, baselines={"zero-shot": 0.7})
        ),
    )
    rows = [row for row in render_card(manifest(metrics=metrics)).splitlines() if row[:2] == "| "]
    assert "| **this prompt** | **0.930** (0.910 to 0.950) | **0.930** |" in rows
    dash = "\N{EN DASH}"
    assert f"| baseline: `majority` | 0.600 | {dash} |" in rows
    assert f"| baseline: `zero-shot` | {dash} | 0.700 |" in rows


def test_a_plain_peft_adapter_gets_a_sound_card() -> None:
    foreign = manifest(
        base_model="unknown",
        task=None,
        provenance={},
        metrics=(),
        license=None,
        fingerprint=None,
        task_type="SEQ_2_SEQ_LM",
    )
    card = render_card(foreign)
    data = ModelCard(card).data.to_dict()
    assert data == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["softhub", "soft-prompt", "prompt-tuning"],
    }
    words = _words(card)
    assert "Soft prompt for an unnamed base model" in words
    assert "No results were recorded." in words
    assert "you must supply a template and labels" in words
    assert "unknown" not in words


def test_a_card_without_a_license_says_so() -> None:
    assert "| License | not stated; ask the author" in render_card(manifest(license=None))
    assert "not stated" not in render_card(manifest(license="mit"))


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_the_code_loads_the_base_as_it_was_quantized(bits: str) -> None:
    card = render_card(manifest(base_quantization=f"bitsandbytes-{bits}"))
    ours, plain = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert f', quantization="{bits}"))' in ours
    assert f"BitsAndBytesConfig(load_in_{bits}=True)" in plain
    assert "quantization_config=quantization)" in plain
    for snippet in (ours, plain):
        compile(snippet, "card", "exec")


def test_the_code_names_weights_that_it_cannot_load_by_name() -> None:
    card = render_card(manifest(base_quantization="gguf-q4_1"))
    for snippet in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        assert '# Trained on "gguf-q4_1" weights: give the path or name' in snippet
        compile(snippet, "card", "exec")
    assert "# Trained on" not in render_card(manifest(base_quantization=None))


def test_a_malformed_task_is_left_out_but_for_its_name() -> None:
    card = render_card(manifest(task={"name": "mood", "template": 5}))
    assert "mood" in ModelCard(card).data.tags
    assert "Input template" not in card


def test_what_the_answers_are_not_good_for_is_the_first_of_the_limits() -> None:
    card = render_card(manifest(task={**TASK_RECORD, "limitations": "Not for pets."}))
    assert "## Limitations\n\n- Not for pets.\n- The prompt works with this base model only" in card
    assert "## Limitations\n\n- The prompt works with this base model only" in render_card(
        manifest()
    )


def test_a_title_replaces_the_heading_and_is_no_mark_up() -> None:
    (heading, *_) = [
        token.content
        for token in MARKDOWN.parse(_split(render_card(manifest(), title="My *own* <b>title"))[1])
        if token.type == "inline"
    ]
    assert MARKDOWN.renderInline(heading) == "My *own* &lt;b&gt;title"


def test_equal_manifests_give_equal_cards() -> None:
    assert render_card(manifest()) == render_card(manifest())


# --- texts of strangers ---------------------------------------------------------------------------


def _cards_with(text: str) -> Mapping[str, Callable[[], str]]:
    """Return, by field, a card with the text in it, for fields that may hold any text."""
    flat = " ".join(text.split())[:200] or "x"
    flat = "".join(letter for letter in flat if letter.isprintable()) or "x"
    label = [{"label": flat, "words": [" yes"]}, {"label": "other", "words": [" no"]}]
    word = [{"label": "a", "words": [flat.strip() or "x"]}, {"label": "b", "words": ["other-word"]}]
    metric = RecordedMetric(**metric_record(name=flat, split=flat, baselines={flat: 0.5}))
    dataset = {"id": flat, "name": text, "source": text, "license": text}
    return {
        "title": lambda: render_card(manifest(), title=text),
        "description": lambda: render_card(manifest(task=_record(description=text))),
        "limitations": lambda: render_card(manifest(task=_record(limitations=text))),
        "template": lambda: render_card(manifest(task=_record(template=f"{text}{{text}}"))),
        "label": lambda: render_card(manifest(task=_record(verbalizer=label))),
        "word": lambda: render_card(manifest(task=_record(verbalizer=word))),
        "task name": lambda: render_card(manifest(task={"name": flat})),
        "metric": lambda: render_card(manifest(metrics=(metric,))),
        "dataset": lambda: render_card(manifest(provenance={"dataset": dataset, "seed": 0})),
        "provenance": lambda: render_card(manifest(provenance={flat: text, "seed": 0})),
        "license": lambda: render_card(manifest(license=flat)),
        "revision": lambda: render_card(manifest(base_revision=flat)),
        "quantization": lambda: render_card(manifest(base_quantization=flat)),
    }


# What a terminal or a browser obeys: control characters, and marks that turn the text around.
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
HARMLESS = {field: _structure(make()) for field, make in _cards_with("word").items()}
KEYS = set(_split(render_card(manifest()))[0])


def _check_harmless(field: str, text: str) -> None:
    """The card has the elements of a harmless text's card, and no other metadata."""
    card = _cards_with(text)[field]()
    values, _ = _split(card)
    assert set(values) <= KEYS | {"license_name"}
    assert values["base_model"] == "org/base"
    assert values["tags"][:3] == ["softhub", "soft-prompt", "prompt-tuning"]
    assert values["tags"][-1] == "base_model:adapter:org/base"
    assert values["license"] in ("apache-2.0", "other") or field == "license"
    structure = _structure(card)
    assert structure == HARMLESS[field], field
    kinds = {kind for kind, _ in structure}
    assert kinds.isdisjoint({"html_inline", "html_block", "image"})
    assert OBEYED.search(card) is None


@pytest.mark.parametrize("text", PAYLOADS)
def test_a_strangers_text_stays_text_in_every_field(text: str) -> None:
    for field in HARMLESS:
        _check_harmless(field, text)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(HARMLESS)),
    st.text(
        st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), max_size=60
    ).filter(one_line)
    | st.text(alphabet="`|\\<>[]()!#-*_~&:{}'\"%@ \n1.=+x", max_size=60).map(
        lambda text: f"x{text}"
    ),
)
def test_any_text_stays_text(field: str, text: str) -> None:
    _check_harmless(field, text)


@pytest.mark.parametrize("text", PAYLOADS)
def test_a_neutralised_line_still_says_what_it_said(text: str) -> None:
    seen = "".join(token.content for token in _walk(MARKDOWN.parseInline(line(text))[0].children))
    assert (
        seen.replace("\n", " ")[:2_000]
        == " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[
            :2_000
        ]
    )


def test_code_of_backticks_and_bars_stays_code() -> None:
    assert MARKDOWN.renderInline(code("a``b` <i>")) == "<code>a``b` &lt;i&gt;</code>"
    table = f"| h |\n|---|\n| {cell('a|b')} |\n"
    assert "<td><code>a|b</code></td>" in MARKDOWN.render(table)
    assert MARKDOWN.render(block("```\n# x\n```", "text")).count("<pre>") == 1


def test_a_task_cannot_pass_for_a_licence_or_another_base_among_the_tags() -> None:
    for name in ("license:mit", "base_model:adapter:evil/base", "region:us"):
        tags = ModelCard(render_card(manifest(task={"name": name}))).data.tags
        assert name not in tags
        assert tags.count("base_model:adapter:org/base") == 1


@pytest.mark.parametrize(
    "value", ["1e-4", "yes", "no", "null", "0x1f", "12:30", "2024-01-01", ".inf"]
)
def test_texts_that_look_like_other_yaml_values_are_quoted(value: str) -> None:
    """PyYAML itself leaves `1e-4` bare, which the Hub's YAML 1.2 reader takes for a number."""
    card = render_card(manifest(metrics=(RecordedMetric(**metric_record(name=value)),)))
    assert f"- type: '{value}'" in card or f'- type: "{value}"' in card
    assert ModelCard(card).data.eval_results[0].metric_type == value


def test_only_names_of_the_hub_become_datasets() -> None:
    for path in ("/home/me/data", "https://x", "a/b/c", None, 5):
        values, _ = _split(render_card(manifest(provenance={"dataset": {"id": path}})))
        assert "datasets" not in values
        assert values["model-index"][0]["results"][0]["dataset"]["type"] == "custom"


# --- terms of the base ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "license"),
    [
        ("google/gemma-3-270m", "gemma"),
        ("unsloth/codegemma-2b", "gemma"),
        ("meta-llama/Llama-3.2-1B-Instruct", "llama3.2"),
        ("NousResearch/Meta-Llama-3-8B", "llama3"),
        ("NousResearch/Hermes-3-Llama-3.1-8B", "llama3.1"),
        ("meta-llama/Llama-2-7b-hf", "llama2"),
        ("codellama/CodeLlama-7b-hf", "llama2"),
    ],
)
def test_terms_of_gemma_and_llama_are_passed_on(base: str, license: str) -> None:
    card = render_card(manifest(base_model=base, license=None))
    assert "## Terms of the base model" in card
    assert "pass these terms on" in card
    assert ModelCard(card).data.license == license


def test_the_prompts_own_licence_goes_before_the_bases() -> None:
    card = render_card(manifest(base_model="google/gemma-2-2b", license="cc-by-4.0"))
    assert ModelCard(card).data.license == "cc-by-4.0"
    assert "Gemma Terms of Use" in card


def test_llamas_notice_names_its_version() -> None:
    text = terms_of("meta-llama/Llama-3.2-1B")
    assert text is not None
    assert "Built with Llama" in text
    assert "Llama 3.2 Community License, Copyright © Meta" in text


@pytest.mark.parametrize(
    "base",
    [
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        "openlm-research/open_llama_3b",
        "JackFram/llama-160m",
        "google/flan-t5-small",
        "unknown",
    ],
)
def test_other_bases_have_no_terms_to_pass_on(base: str) -> None:
    assert terms_of(base) is None
    assert license_of(base) is None


# --- the code in it -------------------------------------------------------------------------------

TASKS = {
    "classification": _record(),
    "chat": _record(
        template="<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n",
        verbalizer=[{"label": word, "words": [word]} for word in ("negative", "positive")],
    ),
    "two columns": _record(template="{title}\n{text}\nSentiment:"),
    "multilabel": _record(
        multilabel=True,
        yes_no=[" yes", " no"],
        decision={"temperature": 1.6, "threshold": 0.35, "abstain_below": 0.7},
    ),
    "generation": _record(kind="generation", verbalizer=None, generation={"max_new_tokens": 4}),
    "no task": None,
}


def _code(card: str, position: int) -> str:
    fences = [token for token in MARKDOWN.parse(_split(card)[1]) if token.type == "fence"]
    return [token.content for token in fences if token.info == "python"][position]


@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize("name", TASKS)
def test_the_code_for_plain_peft_runs(
    name: str, kind: str, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    fields = manifest_fields(
        num_virtual_tokens=3,
        hidden_size=HIDDEN_SIZE,
        task=TASKS[name],
        task_type="SEQ_2_SEQ_LM" if kind == "t5" else "CAUSAL_LM",
    )
    prompt = SoftPrompt(torch.randn(3, HIDDEN_SIZE), Manifest(**fields))
    folder = prompt.save_pretrained(tmp_path / "adapter")
    program = _code((folder / "README.md").read_text(), 1)
    assert ADAPTER in program
    program = program.replace(ADAPTER, str(folder)).replace("org/base", str(tiny_base(kind)))
    printed = io.StringIO()
    with redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(program, "card", "exec"), {})
    if name in ("classification", "chat", "two columns") and kind == "llama":
        assert printed.getvalue().strip() in ("negative", "positive")
    elif name == "multilabel" and kind == "llama":
        rows = [line.split() for line in printed.getvalue().splitlines()]
        assert [label for label, _ in rows] == ["negative", "positive"]
        assert all(0 <= float(chance) <= 1 for _, chance in rows)
    else:
        assert printed.getvalue().endswith("\n")


@pytest.mark.parametrize("name", ["classification", "generation"])
def test_the_card_of_a_prefix_says_so_and_its_code_runs(
    name: str, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    shape = PrefixShape(num_layers=2, num_key_value_heads=2, head_dim=8)
    fields = manifest_fields(num_virtual_tokens=3, hidden_size=None, prefix=shape, task=TASKS[name])
    prompt = SoftPrompt(torch.randn(3, shape.width), Manifest(**fields))
    folder = prompt.save_pretrained(tmp_path / "adapter")
    card = (folder / "README.md").read_text()
    tags = ModelCard(card).data.tags
    assert "prefix-tuning" in tags and "soft-prompt" in tags and "prompt-tuning" not in tags
    assert "keys and values of 3 virtual tokens in each of 2 layers" in card
    program = _code(card, 1).replace(ADAPTER, str(folder))
    printed = io.StringIO()
    with redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(program.replace("org/base", str(tiny_base("llama"))), "card", "exec"), {})
    assert printed.getvalue().endswith("\n")


def test_the_card_says_how_scores_become_answers() -> None:
    card = render_card(manifest(task=TASKS["multilabel"]))
    assert "applies where `yes` has a probability of at least 0.350 against `no`" in card
    assert "divided by 1.600" in card
    assert "below 0.700, the model abstains" in card
    plain = render_card(manifest(task=TASKS["classification"]))
    assert "temperature" not in plain and "abstains" not in plain


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("text", ["'\"\\", "\u2028\u202e", "{text}", "'''", "#", "\t\n"])
def test_the_code_is_python_whatever_the_task_says(name: str, text: str) -> None:
    task = TASKS[name]
    if task is not None:
        task = {**task, "template": task["template"] + text}
    card = render_card(manifest(task=task))
    for position in (0, 1):
        compile(_code(card, position), "card", "exec")
