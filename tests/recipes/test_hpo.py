"""The script that fetches the Human Phenotype Ontology."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fetch import have_files, words

from recipes.data import hpo
from recipes.data.hpo import Ontology, Term, check_no_leak, make_sets, parse
from softhub.tasks import Task

SCRIPT = Path(hpo.__file__)
TASKS = SCRIPT.parents[1] / "tasks"
OBO = """\
format-version: 1.2
data-version: hp/releases/2000-01-01
synonymtypedef: layperson "layperson term"

[Term]
id: HP:0000118
name: Phenotypic abnormality

[Term]
id: HP:0002086
name: Abnormality of the respiratory system
def: "An abnormality of the airways,\\nor of the \\"lungs\\"." [HPO:probinson, PMID:1]
is_a: HP:0000118 ! Phenotypic abnormality

[Term]
id: HP:0002094
name: Dyspnea
synonym: "Trouble breathing" EXACT layperson [HPO:a]
synonym: "Breathlessness" EXACT layperson []
synonym: "Dyspnoea" EXACT uk_spelling [layperson:b]
synonym: "Difficult respiration" RELATED []
is_a: HP:0002086 {source="x"} ! Abnormality of the respiratory system

[Term]
id: HP:0000001
name: obsolete Something
def: "Nothing." []
is_obsolete: true

[Typedef]
id: has_part
name: has part
"""


def test_terms_are_read_with_definition_parents_and_lay_words():
    assert parse(OBO) == [
        Term("HP:0000118", "Phenotypic abnormality", "", (), ()),
        Term(
            "HP:0002086",
            "Abnormality of the respiratory system",
            'An abnormality of the airways, or of the "lungs".',
            ("HP:0000118",),
            (),
        ),
        Term("HP:0002094", "Dyspnea", "", ("HP:0002086",), ("Trouble breathing", "Breathlessness")),
    ]


@pytest.mark.parametrize(
    ("obo", "words"),
    [
        ("", r"found no \[Term\]"),
        ("<html>not found</html>", r"found no \[Term\]"),
        ("[Term]\nid: HP:1", "without id or name"),
        ("[Term]\nid: HP:1\nname: a\ndef: no quotes", "expected a text in quotes"),
    ],
)
def test_another_format_is_refused(obo, words):
    with pytest.raises(ValueError, match=words):
        parse(obo)


def tree(id_, *, below=(), parents=(), said=True, lay=()):
    """Terms of a tree written as nested tuples of ids."""
    text = f"The finding {id_}." if said else ""
    yield Term(id_, f"name of {id_}", text, tuple(parents), tuple(lay))
    for child, grandchildren in below:
        yield from tree(child, below=grandchildren, parents=[id_], lay=[f"lay {child}"])


@pytest.fixture
def small_branches(monkeypatch):
    monkeypatch.setattr(hpo, "LARGEST_BRANCH", 3)


@pytest.fixture
def ontology(small_branches):
    """An eye with a branch of three, a branch of four (which is opened) and two leaves."""
    three = ("three", [("three-a", []), ("three-b", [])])
    four = ("four", [("four-a", [("four-a-a", [])]), ("four-b", []), ("four-c", [])])
    eye = ("HP:0000478", [three, four, ("leaf-a", []), ("leaf-b", [])])
    skin = ("HP:0001574", [("skin-a", [])])
    both = Term("both", "name of both", "In two branches.", ("three-a", "four-b"), ())
    below_both = Term("below", "name of below", "Below both.", ("both",), ())
    two_systems = Term("two", "name of two", "Of eye and skin.", ("HP:0000478", "HP:0001574"), ())
    terms = tree(hpo.FINDINGS, below=[eye, skin])
    return Ontology([*terms, both, below_both, two_systems])


def test_branches_are_whole_subtrees_or_the_leaves_of_an_opened_term(ontology):
    assert ontology.branch == {
        # 'three' has grown by 'both' and 'below' and is opened; its own leaf stays.
        "three-b": "three",
        "three-a": "three-a",
        "four-a": "four-a",
        "four-a-a": "four-a",
        "four-c": "four",
        "four-b": "four-b",
        "leaf-a": "HP:0000478",
        "leaf-b": "HP:0000478",
        "HP:0001574": "HP:0001574",
        "skin-a": "HP:0001574",
    }


def test_a_term_has_a_system_where_it_has_exactly_one(ontology):
    assert ontology.system("four-a-a") == ontology.system("both") == "eye"
    assert ontology.system("skin-a") == "skin"
    assert ontology.system("two") is None


@pytest.fixture
def grown(small_branches, monkeypatch):
    """All ten systems and another, each with twelve branches of up to three, and what to fill."""
    monkeypatch.setattr(hpo, "EXAMPLES", {"test": 5, "dev": 3})
    monkeypatch.setattr(hpo, "EXAMPLES_ELSEWHERE", {"test": 5, "dev": 3})
    monkeypatch.setattr(hpo, "MOST_TRAIN", 11)
    systems = []
    for system in (*hpo.SYSTEMS, "elsewhere"):
        branches = []
        for number in range(12):
            name = f"{system}-{number}"
            leaves = [(f"{name}-{leaf}", []) for leaf in range(1 + number % 2)]
            branches.append((name, leaves))
        systems.append((system, [*branches, (f"{system}-leaf", [])]))
    return Ontology(tree(hpo.FINDINGS, below=systems))


def test_every_system_is_in_every_split_as_often_as_asked(grown):
    organ = make_sets(grown)["organ"]
    counts = {split: Counter(row["label"] for row in rows) for split, rows in organ.items()}
    for split, wanted in (("test", 5), ("dev", 3)):
        assert set(counts[split]) == set(hpo.SYSTEMS.values())
        assert all(wanted <= count < wanted + 3 for count in counts[split].values())
    assert set(counts["train"]) == set(hpo.SYSTEMS.values())
    assert set(counts["train"].values()) == {11}


def test_a_branch_is_in_one_split_of_all_three_sets(grown):
    homes = {}
    for splits in make_sets(grown).values():
        check_no_leak(splits, grown)
        for split, rows in splits.items():
            for row in rows:
                assert homes.setdefault(row["group"], split) == split
    assert set(homes.values()) == set(("train", "dev", "test"))


def test_where_a_branch_goes_does_not_depend_on_the_order(grown):
    backwards = Ontology(reversed(list(grown.terms.values())))
    assert make_sets(backwards) == make_sets(grown)


def test_texts_that_were_there_and_lay_words_that_are_the_name_are_left_out(small_branches):
    terms = list(tree(hpo.FINDINGS, below=[("HP:0000478", [("a", []), ("b", []), ("c", [])])]))
    changed = {
        "b": Term("b", "name of b", "the  finding A", ("HP:0000478",), ("Name of B!",)),
        "c": Term("c", "name of c", "", ("HP:0000478",), ("LAY a",)),
    }
    sets = make_sets(Ontology(changed.get(term.id, term) for term in terms))
    rows = {
        name: [row for split in splits.values() for row in split] for name, splits in sets.items()
    }
    assert [row["id"] for row in rows["organ"]] == ["HP:0000478", "a"]
    assert [row["text"] for row in rows["terms"]] == ["lay HP:0000478", "lay a"]


def test_a_leak_is_refused(grown):
    splits = make_sets(grown)["text"]
    moved = {**splits, "dev": [*splits["dev"], splits["train"][0]]}
    with pytest.raises(ValueError, match="two splits share a group"):
        check_no_leak(moved, grown)
    parent, child = hpo.FINDINGS, "HP:0000478"
    rows = {
        "train": [dict(id=parent, group="a", text="a")],
        "dev": [dict(id=child, group="b", text="b")],
    }
    with pytest.raises(ValueError, match=f"{child} and its parent {parent} are in two splits"):
        check_no_leak(rows, grown)


def test_the_script_says_where_the_data_is_from_and_what_to_do_without_a_network(tmp_path):
    script = tmp_path / "recipes" / "data" / SCRIPT.name
    script.parent.mkdir(parents=True)
    shutil.copy(SCRIPT, script)
    shutil.copy(SCRIPT.with_name("fetch.py"), script.parent)
    no_index = {**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}
    no_index |= {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=no_index, check=False
    )
    assert done.returncode == 1
    for text in ("2025-01-16", "Gargano", "https://hpo.jax.org/app/license", "must not be"):
        assert text in done.stdout
    assert "run this again" in done.stderr and "Traceback" not in done.stderr
    assert not list(script.parent.glob("files/*"))


@pytest.mark.skipif(
    not have_files(hpo.FOLDER, hpo.FILES), reason="run python recipes/data/hpo.py first"
)
@pytest.mark.parametrize("name", ["organ", "terms", "text"])
def test_the_real_splits_share_nothing_and_the_task_reads_them(name):
    splits = {}
    for split in ("train", "dev", "test"):
        lines = (hpo.FOLDER / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        splits[split] = [json.loads(line) for line in lines]
    for what in ("group", "text", "id"):
        sets = [{words(row[what]) for row in rows} for rows in splits.values()]
        assert sum(map(len, sets)) == len(set().union(*sets))
    task = Task.from_file(TASKS / f"medical_{name}.yaml")
    assert [e.group for e in task.load("dev")] == [row["group"] for row in splits["dev"]]
    if name == "organ":
        for rows in splits.values():
            assert {row["label"] for row in rows} == set(hpo.SYSTEMS.values())
