"""Task files: each mistake is refused with the file, the key and the fix."""

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softhub.errors import SoftHubWarning, TaskError
from softhub.tasks import DatasetSource, Task, Template

SENTIMENT = r"""
name: sentiment
kind: classification
description: Good or bad.
language: en
template: "Review: {text}\nSentiment:"
label_column: label
label_map: {0: negative, 1: positive}
group_column: review
verbalizer:
  positive: " positive"
  negative: [" negative", " bad"]
hard_templates:
  - "{text}\nSentiment:"
metrics: [accuracy, macro_f1]
max_length: 128
dataset:
  data_files: {train: data/train.jsonl, test: data/test.csv}
  prepare: python make.py
"""
TRANSLATION = r"""
name: translation
kind: generation
template: "English: {en}\nFrench:\n"
text_column: en
target_column: fr
metrics: [exact_match]
generation: {max_new_tokens: 32, do_sample: false}
dataset: {path: org/pairs, name: en-fr, revision: v1, splits: {train: train, dev: validation}}
"""


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    path = tmp_path / "sentiment.yaml"
    path.write_text(SENTIMENT, encoding="utf-8")
    return path


def test_a_task_file_becomes_a_task(task_file: Path) -> None:
    task = Task.from_file(task_file)
    assert task.verbalizer is not None
    assert task.verbalizer.labels == ("positive", "negative")
    assert task.label_map == {"0": "negative", "1": "positive"}
    assert task.hard_templates == (Template("{text}\nSentiment:"),)
    assert task.metrics == ("accuracy", "macro_f1")
    assert task.max_length == 128


def test_data_files_are_beside_the_task_file(task_file: Path) -> None:
    source = Task.from_file(task_file).dataset
    assert source is not None
    assert source.split_names == ("train", "test")
    assert Path(source.data_files["train"]) == task_file.parent.resolve() / "data" / "train.jsonl"


def test_a_generation_task_on_the_hub(task_file: Path) -> None:
    task_file.write_text(TRANSLATION, encoding="utf-8")
    task = Task.from_file(task_file)
    assert task.generation == {"max_new_tokens": 32, "do_sample": False}
    assert replace(task, generation={"temperature": 0.0})  # as adapters of others have it
    assert task.dataset == DatasetSource(
        path="org/pairs",
        name="en-fr",
        revision="v1",
        splits={"train": "train", "dev": "validation"},
    )


@pytest.mark.parametrize("content", [SENTIMENT, TRANSLATION])
def test_a_record_survives_json_and_holds_only_what_predict_needs(
    task_file: Path, content: str
) -> None:
    task_file.write_text(content, encoding="utf-8")
    task = Task.from_file(task_file)
    record = json.loads(json.dumps(task.to_record(), sort_keys=True))
    again = Task.from_record(record)
    assert again.to_record() == task.to_record()
    assert (again.template, again.verbalizer) == (task.template, task.verbalizer)
    assert again.dataset is None
    assert str(task_file.parent) not in json.dumps(record)
    assert not {"dataset", "metrics", "label_column", "target_column"} & set(record)


def test_a_line_break_written_as_two_characters_is_warned_of(task_file: Path) -> None:
    single = SENTIMENT.replace('- "{text}\\nSentiment:"', r"- '{text}\nSentiment:'")
    assert single != SENTIMENT
    task_file.write_text(single)
    with pytest.warns(SoftHubWarning, match=r"hard_templates: .*two characters.*double quotes"):
        Task.from_file(task_file)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: sentiment", "name: my sentiment", "name: found 'my sentiment'"),
        ("name: sentiment", "name: sentiment/../x", "name: found"),
        ("name: sentiment", "nam: sentiment", "unknown key 'nam'; did you mean 'name'"),
        ("name: sentiment", "name:", "name: missing"),
        ("name: sentiment", "name: 5", "name: found 5, expected text; put it in quotes"),
        ("kind: classification", "kind: clasification", "did you mean 'classification'"),
        ("kind: classification", "kind: generation", "does not belong to a task of kind gener"),
        ("name: sentiment", "name: [a]", r"name: found \['a'\], expected text$"),
        ("language: en", "language: {a: 1}", r"language: found \{'a': 1\}, expected text$"),
        ("language: en", "language: no", "language: found False.*put them in quotes"),
        ('Sentiment:"\nlabel', 'Sentiment: "\nlabel', r"template: .*end it with 'Sentiment:'"),
        ('Sentiment:"\nlabel', 'Sentiment:\\n"\nlabel', r"template: .*the words begin with it"),
        ('- "{text}\\nSentiment:"', '- "{text} Mood: "', "hard_templates: .*ends with white space"),
        ('- "{text}\\nSentiment:"', '- "Mood:"', "hard_templates: .*0 times"),
        ("Review: {text}", "{txt}, {n}", r"template: .*\{text\} 0 times.*text column is 'text'"),
        ("Review: {text}", "{txt}", r"hard_templates: .*\{txt\} 0 times.*text column is 'txt'"),
        ("Review: {text}", "{label}: {text}", r"shows the model the answer; remove \{label\}"),
        ("label_column: label", "label_colunm: label", "did you mean 'label_column'"),
        ("label_column: label\n", "", "label_column: missing"),
        ("label_column: label", "target_column: label", "target_column: does not belong"),
        ("max_length: 128", "test_column: test", "test_column: does not belong"),
        ("1: positive}", "1: pos}", "label_map: '1' is mapped to 'pos'.*expected one of: negative"),
        ('" positive"', '" bad"', "verbalizer: .*is already used for 'positive'"),
        ('" positive"', '"positive"', "write all words the same way"),
        ("positive: ", "yes: ", "verbalizer: found True.*put them in quotes"),
        (
            'verbalizer:\n  positive: " positive"\n  negative: [" negative", " bad"]',
            "verbalizer: [positive, negative]",
            r"verbalizer: found \['positive', .*expected labels with their words.*labels: \[…\]",
        ),
        ("max_length: 128", "decision: {threshold: 0.7}", "decision: threshold is for multi-label"),
        ("[accuracy, macro_f1]", "[acuracy]", "unknown metric 'acuracy'; did you mean 'accuracy'"),
        ("[accuracy, macro_f1]", "accuracy", "metrics: found 'accuracy', expected a list"),
        ("[accuracy, macro_f1]", "[exact_match]", "exact_match does not support classification"),
        ("max_length: 128", "max_length: 0", "max_length: found 0"),
        ("max_length: 128", "max_length: on", "max_length: found True, expected an integer"),
        ("max_length: 128", "max_length: 128\nmax_length: 64", "line 17: .*repeats line 16"),
        ("max_length: 128", "generation: {max_new_tokens: 3}", "does not generate text; remove it"),
        ("max_length: 128", 'max_length: "1', "not valid YAML"),
        ("train: data", "trian: data", "dataset: unknown split 'trian'; did you mean 'train'"),
        ("test: data", "validation: data", "dataset: unknown split 'validation'"),
        ("  prepare: python make.py", "  path: org/x", "either path .* or data_files.*found both"),
        ("  prepare: python make.py", "  revision: v1", "revision belongs to a dataset on the Hub"),
        ("  prepare: python make.py", "  files: x", "dataset: unknown key 'files'"),
    ],
)
def test_a_mistake_is_refused_with_file_key_and_fix(
    task_file: Path, old: str, new: str, message: str
) -> None:
    assert SENTIMENT.count(old) == 1, "the case must change one place"
    task_file.write_text(SENTIMENT.replace(old, new), encoding="utf-8")
    with pytest.raises(TaskError, match=f"(?s)sentiment.yaml: .*{message}"):
        Task.from_file(task_file)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("target_column: fr\n", "", "target_column: missing"),
        ("target_column: fr", "target_column: en", r"shows the model the answer; remove \{en\}"),
        ("French:\\n", "French: ", "tokenizers join it to the next word"),
        ("[exact_match]", "[macro_f1]", "macro_f1 does not support generation; use exact_match"),
        ("max_new_tokens: 32", "max_new_token: 32", "did you mean 'max_new_tokens'"),
        ("max_new_tokens: 32", "custom_generate: org/code", "unknown option 'custom_generate'"),
        ("max_new_tokens: 32", "max_new_tokens: many", "max_new_tokens is 'many'"),
        ("max_new_tokens: 32", "max_new_tokens: 0", "max_new_tokens is 0; .* of 1 or more"),
        ("do_sample: false", "num_beams: 2.5", "num_beams is 2.5; expected a whole number"),
        ("do_sample: false", "do_sample: 1", "do_sample is 1; expected true or false"),
        (
            "do_sample: false",
            "temperature: -1",
            "temperature is -1; expected a number of 0",
        ),
        ("do_sample: false", "top_p: 1.5", "top_p is 1.5; expected a number from 0 to 1"),
        ("do_sample: false", r'stop: "\n"', r"stop is '\\n'; expected a list"),
        ("do_sample: false", "stop: [1]", r"stop is \[1\]; expected a list"),
        ("do_sample: false", 'stop: [""]', "expected a list of the texts that end an answer"),
        ("do_sample: false", r"stop: ['\n']", "in double quotes"),
        ("[exact_match]", "[chrF]", "unknown metric 'chrF'; did you mean 'chrf'"),
        ("[exact_match]", "[bleu]", "unknown metric 'bleu'; did you mean 'sacrebleu'"),
        ("[exact_match]", "[rouge-2]", "did you mean 'rouge2'"),
        ("[exact_match]", "[pass_at_1]", "pass_at_1 runs each answer with its tests.*test_column"),
        ("target_column: fr", "target_column: fr\nlabel_map: {}", "label_map: does not belong"),
        ("kind: generation", "kind: generation\ncode_colum: en", "did you mean 'code_column'"),
        (", splits: {train: train, dev: validation}", "", "splits are missing.*org/pairs"),
        ("path: org/pairs, name: en-fr, revision: v1, ", "", "found neither"),
    ],
)
def test_a_mistake_in_a_generation_task_is_refused(
    task_file: Path, old: str, new: str, message: str
) -> None:
    assert TRANSLATION.count(old) == 1, "the case must change one place"
    task_file.write_text(TRANSLATION.replace(old, new), encoding="utf-8")
    with pytest.raises(TaskError, match=f"(?s)sentiment.yaml: .*{message}"):
        Task.from_file(task_file)


@pytest.mark.parametrize(
    "content", [b"", b"- a\n- b\n", b"just text", b"\xff\xfe", b"a: [1", b"&a [*a"]
)
def test_a_file_that_is_no_task_is_refused(task_file: Path, content: bytes) -> None:
    task_file.write_bytes(content)
    with pytest.raises(TaskError, match=r"sentiment\.yaml: "):
        Task.from_file(task_file)


def test_a_file_of_another_encoding_is_told_what_to_do(task_file: Path) -> None:
    task_file.write_bytes(SENTIMENT.replace("Good or bad", "Höflich").encode("cp1252"))
    with pytest.raises(TaskError, match=r"sentiment\.yaml: .*not UTF-8 text; .*save it as UTF-8"):
        Task.from_file(task_file)


def test_a_missing_task_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"none\.yaml: there is no such task file"):
        Task.from_file(tmp_path / "none.yaml")


def test_yaml_makes_no_python_objects(task_file: Path) -> None:
    task_file.write_text("name: !!python/object/apply:os.getcwd []\n", encoding="utf-8")
    with pytest.raises(TaskError, match="not valid YAML"):
        Task.from_file(task_file)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dataset", {"path": "org/x"}, "unknown key 'dataset'"),
        ("code", "print()", "unknown key 'code'"),
        ("kind", "token-classification", "unknown kind"),
        ("verbalizer", None, "verbalizer: missing"),
        ("verbalizer", "positive", "expected keys with values"),
        ("template", ["a"], "template: found"),
        ("generation", {"trust_remote_code": 1}, "generation"),
    ],
)
def test_a_hostile_or_damaged_record_is_refused(
    task_file: Path, key: str, value: Any, message: str
) -> None:
    record = {**Task.from_file(task_file).to_record(), key: value}
    with pytest.raises(TaskError, match=f"the manifest's task: .*{message}"):
        Task.from_record(record)


def test_words_glued_to_the_template_are_warned_of(task_file: Path) -> None:
    glued = SENTIMENT.replace('" positive"', "positive").replace('" negative", " bad"', "negative")
    task_file.write_text(glued, encoding="utf-8")
    with pytest.warns(SoftHubWarning, match="the model reads ':positive'; write ' positive'"):
        Task.from_file(task_file)


@pytest.mark.parametrize("end", [r"Sentiment:\n", r"Sentiment: \"", "", "情感是"])
def test_words_without_a_space_are_sound_where_none_belongs(task_file: Path, end: str) -> None:
    words = ("很好", "不好") if end == "情感是" else ("positive", "negative")
    task_file.write_text(
        f'name: a\nkind: classification\ntemplate: "{{text}}{end}"\n'
        f"verbalizer: {{a: {words[0]}, b: {words[1]}}}\n",
        encoding="utf-8",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Task.from_file(task_file)


def test_reading_a_task_loads_no_torch(task_file: Path) -> None:
    code = (
        "import sys; from softhub.tasks import Task; Task.from_file(sys.argv[1]); "
        "print(sorted({'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(task_file)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
