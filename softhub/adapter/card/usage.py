"""Code for a card, which a reader can run after putting in the adapter's place."""

import json
import re

from softhub.adapter.manifest import Manifest
from softhub.adapter.portable import UNKNOWN_BASE
from softhub.tasks import Task

ADAPTER = "path/to/this/adapter"
"""What stands in the code where the reader puts the adapter's folder."""

_EXAMPLE = "Your text here."
_NEW_TOKENS = 32
# A rendered chat holds the control tokens that a tokenizer would otherwise add itself.
_CONTROL_TOKEN = re.compile(r"<[^<>\s]{1,30}>|\[INST\]")


def softhub_code(manifest: Manifest, task: Task | None) -> str:
    """Return Python that answers one text with softhub."""
    if task is not None and task.verbalizer is not None:
        answer = f"print(model.predict([{_quoted(_EXAMPLE)}], prompt=prompt))"
    else:
        answer = f"print(model.generate([{_quoted(_EXAMPLE)}], prompt=prompt))"
    return "\n".join(
        [
            "from softhub import PromptModel, load_base",
            "",
            f"model = PromptModel(load_base({_base_arguments(manifest)}))",
            f"prompt = model.load_prompt({_quoted(ADAPTER)})",
            answer,
        ]
    )


def peft_code(manifest: Manifest, task: Task | None) -> str:
    """Return Python that answers one text with PEFT and transformers alone."""
    seq2seq = manifest.task_type == "SEQ_2_SEQ_LM"
    auto = "AutoModelForSeq2SeqLM" if seq2seq else "AutoModelForCausalLM"
    arguments = _base_arguments(manifest)
    lines = [
        "import torch",
        "from peft import PeftModel",
        f"from transformers import {auto}, AutoTokenizer",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({arguments})",
        f"model = {auto}.from_pretrained({arguments})",
        f"model = PeftModel.from_pretrained(model, {_quoted(ADAPTER)}).eval()",
        "",
        *_input_lines(task),
    ]
    if task is not None and task.verbalizer is not None and not seq2seq:
        labels = _yes_no_lines(task) if task.multilabel else _label_lines(task)
        return "\n".join([*lines, *labels])
    return "\n".join([*lines, *_generate_lines(task, seq2seq)])


def _base_arguments(manifest: Manifest) -> str:
    known = manifest.base_model != UNKNOWN_BASE
    name = _quoted(manifest.base_model if known else "owner/name-of-the-base")
    return f"{name}, revision={_quoted(manifest.base_revision)}" if manifest.base_revision else name


def _quoted(text: str) -> str:
    """Return a Python literal of a text, in double quotes where nothing must be escaped for it."""
    readable = text.replace("\n", "").isprintable()
    return json.dumps(text, ensure_ascii=False) if readable else repr(text)


def _input_lines(task: Task | None) -> list[str]:
    if task is None:
        return [f"text = {_quoted(_EXAMPLE)}", 'inputs = tokenizer(text, return_tensors="pt")']
    filled = "".join(
        f".replace({_quoted(f'{{{column}}}')}, {_quoted(_EXAMPLE)})"
        for column in task.template.columns
    )
    framed = _CONTROL_TOKEN.search(task.template.text)
    plain = ", add_special_tokens=False" if framed else ""
    return [
        f"text = {_quoted(task.template.text)}{filled}",
        f'inputs = tokenizer(text, return_tensors="pt"{plain})',
    ]


def _words(task: Task) -> str:
    assert task.verbalizer is not None
    words = ", ".join(
        f"{_quoted(label)}: {_quoted(words[0])}" for label, words in task.verbalizer.words
    )
    return f"words = {{{words}}}"


def _yes_no_lines(task: Task) -> list[str]:
    """Ask for each label behind the text, and compare the first tokens of the two answers."""
    yes, no = map(_quoted, task.yes_no)
    return [
        _words(task),
        "for label, word in words.items():",
        "    question = tokenizer(word, add_special_tokens=False, return_tensors='pt').input_ids",
        "    ids = torch.cat([inputs.input_ids, question], dim=1)",
        "    with torch.no_grad():",
        "        logits = model(input_ids=ids).logits[0, -1]",
        "    yes, no = (",
        "        logits[tokenizer(answer, add_special_tokens=False).input_ids[0]]",
        f"        for answer in ({yes}, {no})",
        "    )",
        "    print(label, torch.sigmoid(yes - no).item())",
    ]


def _label_lines(task: Task) -> list[str]:
    return [
        "with torch.no_grad():",
        "    logits = model(**inputs).logits[0, -1]",
        _words(task),
        "scores = {",
        "    label: logits[tokenizer(word, add_special_tokens=False).input_ids[0]].item()",
        "    for label, word in words.items()",
        "}",
        "print(max(scores, key=scores.get))",
    ]


def _generate_lines(task: Task | None, seq2seq: bool) -> list[str]:
    count = (task.generation if task else {}).get("max_new_tokens", _NEW_TOKENS)
    start = "" if seq2seq else "[inputs.input_ids.shape[1] :]"
    return [
        "with torch.no_grad():",
        f"    output = model.generate(**inputs, max_new_tokens={int(count)})[0]",
        f"print(tokenizer.decode(output{start}, skip_special_tokens=True))",
    ]
