"""The model class for lm-evaluation-harness, against the harness' own class row by row.

Skipped where the harness is not installed: pip install -e '.[lm-eval]'.
"""

import json
import sys

import pytest
import yaml

pytest.importorskip("lm_eval")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from softhub.errors import ConfigError, TaskError
from softhub.evaluation.lm_eval import SoftPromptLM, main
from tests.prompts import MOOD, TEXTS, TOPIC, soft_prompt

PROMPTED = {"mood": (MOOD, 5), "topic": (TOPIC, 12)}
TASKS = ("bare", *PROMPTED)
PAIRS = [
    *((f"Review: {text} Sentiment:", f" {word}") for text in TEXTS for word in ("good", "not so")),
    ("The battery lasts ", "a whole day and the camera takes sharp pictures."),
    ("The answer is", " yes"),
    ("The answer is", " no"),
    ("", "The answer is yes."),
]
OPTIONS = [
    {"until": ["e", "\n"], "max_gen_toks": 9},
    {"until": "zz", "max_gen_toks": 5, "do_sample": False, "temperature": 0.0, "top_p": 0.9},
]


@pytest.fixture
def folders(tmp_path, loaded):
    """`folders(kind)`: an adapter for each task, and None for the one of the bare base."""

    def make(kind):
        found = {"bare": None}
        for name, (task, tokens) in PROMPTED.items():
            prompt = soft_prompt(loaded(kind), tokens, task, seed=tokens)
            found[name] = str(prompt.save_pretrained(tmp_path / name))
        return found

    return make


def instances(kind, arguments, task):
    return [
        Instance(kind, {}, each, index, (task, index, 1)) for index, each in enumerate(arguments)
    ]


def interleaved(kind, arguments):
    """The same arguments for each task; neighbors are of different tasks."""
    of_tasks = [instances(kind, arguments, task) for task in TASKS]
    return [each for group in zip(*of_tasks, strict=True) for each in group]


def row_by_row(base, adapters, method, kind, arguments):
    """What the harness' own class answers, one prompt and one row at a time, interleaved."""
    found = []
    for task, adapter in adapters.items():
        model = HFLM(pretrained=str(base), peft=adapter, batch_size=1, device="cpu")
        found.append(getattr(model, method)(instances(kind, arguments, task), disable_tqdm=True))
    return [each for group in zip(*found, strict=True) for each in group]


@pytest.mark.parametrize("kind", ["llama", "mistral", "t5"])
def test_mixed_batches_score_as_the_harness_does_row_by_row(kind, tiny_base, folders):
    adapters = folders(kind)
    model = SoftPromptLM(str(tiny_base(kind)), adapters, batch_size="7", device="cuda:0")
    found = model.loglikelihood(interleaved("loglikelihood", PAIRS), disable_tqdm=True)
    expected = row_by_row(tiny_base(kind), adapters, "loglikelihood", "loglikelihood", PAIRS)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    for (ours, _), (theirs, _) in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3, rel=1e-5)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_the_greedy_continuation_is_known_as_such(kind, tiny_base, folders, loaded):
    tokenizer, adapters = loaded(kind).tokenizer, folders(kind)
    words = [tokenizer.decode([token]) for token in range(6, len(tokenizer))]
    words = [word for word in words if len(tokenizer.encode(word, add_special_tokens=False)) == 1]
    # Longer ones, of which the first token is greedy and the second not always.
    pairs = [(TEXTS[0], word + more) for word in words for more in ("", " the")]
    model = SoftPromptLM(str(tiny_base(kind)), adapters, batch_size=64)
    found = model.loglikelihood(interleaved("loglikelihood", pairs), disable_tqdm=True)
    expected = row_by_row(tiny_base(kind), adapters, "loglikelihood", "loglikelihood", pairs)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert any(greedy for _, greedy in found)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_whole_texts_score_as_the_harness_does(kind, tiny_base, folders):
    adapters, texts = folders(kind), [(text,) for text in TEXTS]
    model = SoftPromptLM(str(tiny_base(kind)), adapters, batch_size=4)
    method = "loglikelihood_rolling"
    found = model.loglikelihood_rolling(interleaved(method, texts), disable_tqdm=True)
    expected = row_by_row(tiny_base(kind), adapters, method, method, texts)
    assert found == pytest.approx(expected, abs=1e-3, rel=1e-5)


def test_a_text_of_many_windows_is_scored_to_its_end(tiny_base, folders):
    adapters = folders("llama")
    model = SoftPromptLM(str(tiny_base("llama")), adapters["topic"], batch_size=2)
    long = " ".join(TEXTS * 20)  # more than the 512 positions
    (found,) = model.loglikelihood_rolling(
        instances("loglikelihood_rolling", [(long,)], "any"), disable_tqdm=True
    )
    own = HFLM(
        pretrained=str(tiny_base("llama")),
        peft=adapters["topic"],
        batch_size=1,
        device="cpu",
        max_length=512 - PROMPTED["topic"][1] - 1,
    )
    (expected,) = own.loglikelihood_rolling(
        instances("loglikelihood_rolling", [(long,)], "any"), disable_tqdm=True
    )
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_texts_continue_as_in_the_harness_row_by_row(kind, tiny_base, folders):
    adapters = folders(kind)
    arguments = [(text, options) for options in OPTIONS for text in TEXTS]
    model = SoftPromptLM(str(tiny_base(kind)), adapters, batch_size=7)
    found = model.generate_until(interleaved("generate_until", arguments), disable_tqdm=True)
    greedy = [{k: v for k, v in each.items() if k != "top_p"} for each in OPTIONS]
    plain = [(text, options) for options in greedy for text in TEXTS]
    expected = row_by_row(tiny_base(kind), adapters, "generate_until", "generate_until", plain)
    if kind == "t5":  # the harness adds the tokens of an encoder's text to the new ones
        pairs = zip(expected, found, strict=True)
        expected = [each if not each.startswith(ours.rstrip("�")) else ours for each, ours in pairs]
    assert found == expected
    assert len(set(found)) > len(TEXTS)


def test_the_prompt_comes_before_the_rendered_chat(tiny_base, folders):
    model = SoftPromptLM(str(tiny_base("llama")), folders("llama")["mood"])
    own = HFLM(pretrained=str(tiny_base("llama")), batch_size=1, device="cpu")
    chat = [{"role": "user", "content": TEXTS[0]}]
    assert model.apply_chat_template(chat) == own.apply_chat_template(chat)
    assert model.chat_template(True) == own.chat_template(True)
    assert model.tokenizer_name == own.tokenizer_name
    rendered = model.apply_chat_template(chat)
    (found,) = model.loglikelihood(instances("loglikelihood", [(rendered, " yes")], "any"))
    adapters = {"any": folders("llama")["mood"]}
    ((expected, _),) = row_by_row(
        tiny_base("llama"), adapters, "loglikelihood", "loglikelihood", [(rendered, " yes")]
    )
    assert found[0] == pytest.approx(expected, abs=1e-3)


def test_what_is_too_long_loses_its_beginning_and_says_so(tiny_base, folders):
    model = SoftPromptLM(str(tiny_base("llama")), folders("llama")["mood"])
    long = "Great value. " * 300 + "The answer is"
    with pytest.warns(UserWarning, match=r"1 texts were too long .* tokens at their beginnings"):
        (cut,) = model.loglikelihood(instances("loglikelihood", [(long, " yes")], "any"))
    ids = model._ids(long)
    room = 512 - PROMPTED["mood"][1] - len(model._ids(" yes"))
    tail = model._tokenizer.decode(ids[-room:])
    (found,) = model.loglikelihood(instances("loglikelihood", [(tail, " yes")], "any"))
    assert cut[0] == pytest.approx(found[0], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": "auto"}, "expected a number of rows"),
        ({"batch_size": "auto:4"}, "expected a number of rows"),
        ({"batch_size": 8, "max_batch_size": 64}, "max_batch_size"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, tiny_base):
    with pytest.raises(ConfigError, match=message):
        model = SoftPromptLM(str(tiny_base("llama")), **arguments)
        model.loglikelihood(instances("loglikelihood", PAIRS, "any"))


def test_a_task_without_a_prompt_and_a_cache_that_knows_texts_only_are_refused(tiny_base, folders):
    model = SoftPromptLM(str(tiny_base("llama")), folders("llama"))
    with pytest.raises(ConfigError, match="No prompt is given for the task 'other'"):
        model.loglikelihood(instances("loglikelihood", PAIRS, "other"))
    with pytest.raises(ConfigError, match="--use_cache"):
        model.set_cache_hook(None)
    for context in ("The answer", ""):
        with pytest.raises(TaskError, match="no tokens of its own"):
            model.loglikelihood(instances("loglikelihood", [(context, "")], "mood"))


# --- its command line ---


def write_task(folder, name, task):
    words = [word for _, words in task.verbalizer.words for word in words]
    rows = [{"text": task.template.render({"text": text}), "words": words} for text in TEXTS]
    lines = (json.dumps({**row, "right": at % 2}) for at, row in enumerate(rows))
    (folder / f"{name}.jsonl").write_text("\n".join(lines))
    record = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "text",
        "doc_to_choice": "words",
        "doc_to_target": "right",
        "target_delimiter": "",
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(record))


@pytest.mark.slow
def test_its_command_line_evaluates_several_tasks_with_their_prompts(
    tiny_base, folders, tmp_path, monkeypatch
):
    adapters, made = folders("llama"), tmp_path / "tasks"
    made.mkdir()
    for name in ("mood", "topic"):
        write_task(made, name, PROMPTED[name][0])
    arguments = {"base": str(tiny_base("llama")), "prompt": adapters}
    where = ["--include_path", made, "--output_path", tmp_path / "output", "--log_samples"]
    what = ["--model", "softhub", "--model_args", json.dumps(arguments), "--batch_size", "6"]
    line = ["lm_eval", *what, "--tasks", "mood,topic", *where]
    monkeypatch.setattr(sys, "argv", [str(word) for word in line])
    main()
    for name in ("mood", "topic"):
        (samples,) = (tmp_path / "output").rglob(f"samples_{name}_*.jsonl")
        ours = [json.loads(row) for row in samples.read_text().splitlines()]
        plain = {"pretrained": str(tiny_base("llama")), "peft": adapters[name]}
        theirs = simple_evaluate(
            model="hf", model_args=plain, tasks=[str(made / f"{name}.yaml")], device="cpu"
        )["samples"][name]
        for mine, other in zip(by_document(ours), by_document(theirs), strict=True):
            for (score,), (expected,) in zip(mine["resps"], other["resps"], strict=True):
                assert float(score[0]) == pytest.approx(float(expected[0]), abs=1e-3)
            assert mine["acc"] == other["acc"]


def by_document(samples):
    return sorted(samples, key=lambda sample: sample["doc_id"])


def test_a_mistake_on_its_command_line_is_one_line(tiny_base, tmp_path, monkeypatch):
    write_task(tmp_path, "mood", MOOD)
    arguments = f"base={tiny_base('llama')},prompt={tmp_path / 'none'}"
    line = ["lm_eval", "--model", "softhub", "--model_args", arguments, "--tasks", "mood"]
    monkeypatch.setattr(sys, "argv", [*line, "--include_path", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^Error: .*none"):
        main()
