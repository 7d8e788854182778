"""Recipes' settings: YAML and flags become typed dataclasses, and mistakes one sentence."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from softhub.config import Alternatives, parse_config, softhub_home
from softhub.errors import ConfigError


@dataclass
class Settings:
    task: str = "none"
    learning_rate: float = 0.1
    max_steps: int = 10
    resume: bool = False
    careful: bool = True
    init_text: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class Limited(Settings):
    """Epochs count only without max_steps, and max_steps only without a list of steps."""

    ALTERNATIVES: ClassVar[Alternatives] = {
        "max_steps": ("-1", ("epochs",)),
        "steps": (None, ("max_steps", "epochs")),
    }
    epochs: float = 3.0
    steps: list[int] = field(default_factory=list)


@dataclass
class More:
    seed: int = 0


@pytest.fixture
def read(tmp_path):
    """`read(yaml, *flags)`: the settings of a config file with flags behind it."""

    def parse(text, *flags):
        file = tmp_path / "configs" / "my.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return parse_config(Settings, argv=["--config", str(file), *flags])[0]

    return parse


@pytest.mark.parametrize(
    ("yaml", "key", "value"),
    [
        ("learning_rate: 1e-4", "learning_rate", 1e-4),  # a YAML reader alone says '1e-4'
        ("learning_rate: 3", "learning_rate", 3.0),
        ("max_steps: -1", "max_steps", -1),
        ("resume: true", "resume", True),
        ("careful: false", "careful", False),
        ("init_text: null", "init_text", None),
        ("init_text: 12", "init_text", "12"),
        ("init_text: ''", "init_text", ""),
        ('init_text: "- good: bad"', "init_text", "- good: bad"),
        ('init_text: "--seed"', "init_text", "--seed"),
        ("init_text: a=b", "init_text", "a=b"),
        ("tags: [mood, 2]", "tags", ["mood", "2"]),
        ("tags: mood", "tags", ["mood"]),
    ],
)
def test_yaml_values_get_the_types_of_the_fields(yaml, key, value, read):
    found = getattr(read(yaml), key)
    assert found == value
    assert type(found) is type(value)


def test_flags_override_the_file(read):
    found = read("learning_rate: 1e-4\nmax_steps: 3", "--max_steps", "5", "--resume")
    assert (found.learning_rate, found.max_steps, found.resume) == (1e-4, 5, True)
    assert read("max_steps: 3", "--max_steps=7").max_steps == 7


def test_flags_may_have_dashes(read):
    found = read("max_steps: 3", "--max-steps", "5", "--learning-rate=2", "--resume")
    assert (found.max_steps, found.learning_rate, found.resume) == (5, 2.0, True)
    assert read("max-steps: 3\ninit-text: good").max_steps == 3


def test_a_default_file_is_read_where_none_is_named(tmp_path):
    default, named = tmp_path / "default.yaml", tmp_path / "named.yaml"
    default.write_text("max_steps: 3\ntask: ./mood.yaml\n")
    named.write_text("max_steps: 4\n")
    (found,) = parse_config(Settings, default=default, argv=["--resume"])
    assert (found.max_steps, found.resume) == (3, True)
    assert Path(found.task).resolve() == tmp_path / "mood.yaml"
    argv = ["--config", str(named)]
    assert parse_config(Settings, default=default, argv=argv) == (Settings(max_steps=4),)


def test_several_dataclasses_share_file_and_flags(tmp_path):
    (tmp_path / "c.yaml").write_text("seed: 4\ntask: mood\n")
    settings, more = parse_config(Settings, More, argv=[f"--config={tmp_path / 'c.yaml'}"])
    assert (settings.task, more.seed) == ("mood", 4)
    assert parse_config(More, argv=["--seed", "2"]) == (More(seed=2),)


def test_the_command_line_is_the_default(monkeypatch):
    monkeypatch.setattr("sys.argv", ["recipe.py", "--seed", "3"])
    assert parse_config(More) == (More(seed=3),)


def test_a_file_named_like_the_program_is_not_read(tmp_path, monkeypatch):
    """transformers would quietly take flags from `recipe.args` beside `recipe.py`."""
    (tmp_path / "recipe.args").write_text("--seed 9")
    monkeypatch.setattr("sys.argv", [str(tmp_path / "recipe.py")])
    assert parse_config(More) == (More(seed=0),)


def test_paths_in_the_file_are_beside_the_file(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for written, meant in (("./mood.yaml", "configs/mood.yaml"), ("../mood.yaml", "mood.yaml")):
        assert Path(read(f"task: {written}").task).resolve() == (tmp_path / meant).resolve()
    assert read("task: tasks/mood.yaml").task == "tasks/mood.yaml"
    assert read("tags: [./a, b]").tags == [str(Path("configs", "a")), "b"]


def test_a_path_in_a_flag_is_the_caller_s(read):
    assert read("max_steps: 1", "--task", "../mood.yaml").task == "../mood.yaml"


@pytest.mark.parametrize(
    ("yaml", "flags", "message"),
    [
        ("learning_rat: 1", [], r"Unknown option --learning-rat\. .*--learning-rate"),
        ("max_steps: 1", ["--max_step", "2"], r"Unknown option --max-step\. .*--max-steps"),
        ("max_steps: 1", ["--zzz=2"], r"Unknown option --zzz"),
        ("max_steps: 1", ["my.py"], r"Found 'my\.py', which follows no option\. --help lists all"),
        ("max_steps: many", [], r"max_steps.*'many'.*--help"),
        ("resume: perhaps", [], "perhaps"),
        ("task: {name: mood}", [], r"my\.yaml: 'task' is a mapping"),
        ("max_steps: 1", ["stray"], "stray"),
        ("- a\n- b", [], r"my\.yaml has no 'key: value' lines"),
        ("", [], "has no 'key: value' lines"),
        ("tags: []", [], "--tags.*expected at least one"),
        (
            "seed: 1\nmax_steps: 1\nseed: 2",
            [],
            r"my\.yaml .* line 3: the key 'seed' repeats line 1",
        ),
        (
            "max_steps: 1\nmax-steps: 2",
            [],
            r"my\.yaml .* line 2: the key 'max-steps' repeats line 1",
        ),
        ('{"task": "a", "task": "b"}', [], r"my\.yaml .* line 1: the key 'task' repeats line 1"),
        ("tags: {a: 1, a: 2}", [], r"my\.yaml .* line 1: the key 'a' repeats line 1"),
        ("task: [unclosed", [], r"my\.yaml is not valid YAML"),
        (b"task: \xff\xfe", [], r"my\.yaml.*UTF-8"),
    ],
)
def test_mistakes_are_one_sentence(yaml, flags, message, read):
    with pytest.raises(ConfigError, match=message) as caught:
        read(yaml, *flags)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    for argv in (["--config", f"{tmp_path}/no.yaml"], [f"--config={tmp_path}/no.yaml"]):
        with pytest.raises(ConfigError, match=r"no\.yaml': No such file"):
            parse_config(Settings, argv=argv)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        parse_config(Settings, argv=["--config", str(tmp_path)])
    with pytest.raises(ConfigError, match="--config needs a file"):
        parse_config(Settings, argv=["--config"])


def test_home_is_the_variable_or_the_user_s(monkeypatch, tmp_path):
    monkeypatch.setenv("SOFTHUB_HOME", str(tmp_path))
    assert softhub_home() == tmp_path
    for nothing in ("", None):
        monkeypatch.delenv("SOFTHUB_HOME")
        if nothing is not None:
            monkeypatch.setenv("SOFTHUB_HOME", nothing)
        assert softhub_home() == Path.home() / ".softhub"
        monkeypatch.setenv("SOFTHUB_HOME", "x")


@pytest.mark.parametrize(
    ("yaml", "flags", "expected"),
    [
        ("task: a", [], ([], 10, 3.0)),
        ("steps: [3, 4]", [], ([3, 4], 10, 3.0)),
        ("steps: [3, 4]", ["--max_steps", "5"], ([], 5, 3.0)),
        ("steps: [3, 4]", ["--max-steps=5"], ([], 5, 3.0)),
        ("steps: [3, 4]", ["--epochs", "2"], ([], -1, 2.0)),
        ("max_steps: 5", ["--steps", "3", "4"], ([3, 4], 10, 3.0)),
        ("max_steps: 5", ["--epochs", "2"], ([], -1, 2.0)),
        ("epochs: 2", ["--max-steps", "5"], ([], 5, 3.0)),
        ("epochs: 2", [], ([], -1, 2.0)),
        ("epochs: 2\nmax_steps: -1", [], ([], -1, 2.0)),
    ],
)
def test_a_flag_wins_over_what_would_replace_it(yaml, flags, expected, tmp_path):
    (tmp_path / "c.yaml").write_text(yaml)
    (found,) = parse_config(Limited, argv=[f"--config={tmp_path / 'c.yaml'}", *flags])
    assert (found.steps, found.max_steps, found.epochs) == expected


@pytest.mark.parametrize(
    ("yaml", "flags", "message"),
    [
        ("steps: [3]\nmax_steps: 5", [], "both steps and max_steps in the config; only steps"),
        ("epochs: 2\nmax_steps: 5", [], "both max_steps and epochs in the config; only max_steps"),
        ("task: a", ["--epochs=2", "--max-steps", "5"], "both max_steps and epochs in the flags"),
        ("task: a", ["--steps", "3", "--epochs=2"], "both steps and epochs in the flags"),
    ],
)
def test_two_settings_of_which_one_has_no_effect_are_refused(yaml, flags, message, tmp_path):
    (tmp_path / "c.yaml").write_text(yaml)
    with pytest.raises(ConfigError, match=message):
        parse_config(Limited, argv=[f"--config={tmp_path / 'c.yaml'}", *flags])
