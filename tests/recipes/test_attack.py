"""The script that fetches sentences of threat reports with their tactics."""

from pathlib import Path

import pytest

from recipes.data import attack
from recipes.data.attack import TACTICS, examples, sentence
from softhub.tasks import Task

SCRIPT = Path(attack.__file__)
TASK = SCRIPT.parents[1] / "tasks" / "attack_tactics.yaml"
URL = "https://attack.mitre.org/software/S1"
SUBJECT = {"stix_id": "malware--1", "name": "Evil", "url": URL}
TECHNIQUES = {
    "hide": {"tactics": ["defense-evasion"]},
    "task": {"tactics": ["execution", "persistence"]},
    "wipe": {"tactics": ["impact"]},
}


def relation(description, target, **changes):
    fields = {
        "relationship_type": "uses",
        "source_ref": "malware--1",
        "target_ref": target,
        "description": description,
        "revoked": False,
        "deprecated": False,
    }
    return {**fields, **changes}


@pytest.mark.parametrize(
    ("description", "text"),
    [
        (f"[Evil]({URL}) can  hide its files.(Citation: A)", "The malware can hide its files."),
        (
            f"[Evil]({URL}) copies <code>a.exe</code> of [Other](https://x.example/S2) there. "
            "(Citation: a very long title that the package has c...",
            "The malware copies a.exe of Other there.",
        ),
        (f"[Evil]({URL}) hides its files in the folder of...", None),
        (f"[Evil]({URL}) hides files.(Citation: A)", None),
        (f"[Evil]({URL}) hides what it got from [Other](https://x.ex(Citation: A)", None),
    ],
)
def test_a_description_becomes_a_sentence(description, text):
    assert sentence(description, SUBJECT) == text


def test_labels_are_those_of_all_techniques_of_a_text():
    said = f"[Evil]({URL}) runs a hidden task each day."
    rows = examples(
        [
            relation(said, "task"),
            relation(said.replace("each day", "each  day "), "hide"),
            relation(f"[Evil]({URL}) wipes the disks of victims.", "wipe"),
            relation(f"[Evil]({URL}) hides itself from the user.", "hide", revoked=True),
            relation(f"[Evil]({URL}) hides itself from the analyst.", "hide", source_ref="other"),
            relation("A mitigation of one of these.", "hide", relationship_type="mitigates"),
        ],
        TECHNIQUES,
        {"malware--1": SUBJECT},
    )
    assert rows == [
        {
            "text": "The malware runs a hidden task each day.",
            "labels": ["defense-evasion", "execution", "persistence"],
            "group": "Evil",
        }
    ]


def test_the_task_reads_the_rows():
    task = Task.from_file(TASK)
    assert task.multilabel and task.verbalizer.labels == TACTICS
    row = {"text": "The tool runs code.", "labels": ["execution", "discovery"], "group": "Tool"}
    (example,) = task.to_examples([row])
    assert (example.label, example.group) == ("discovery;execution", "Tool")
