"""A soft prompt's way to disk and back, proven against plain PEFT."""

import dataclasses
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from softhub.adapter.layout import CARD, CONFIG, FILES, MANIFEST, WEIGHTS, WEIGHTS_KEY
from softhub.adapter.manifest import Manifest
from softhub.adapter.validation import check_folder
from softhub.errors import InvalidAdapter, UnsupportedAdapter
from softhub.model.prompt import SoftPrompt
from tests.hostile.sound import manifest_fields
from tests.references import assert_equal_in_float32
from tests.tiny import DECODERS, HIDDEN_SIZE

TinyBase = Callable[[str], Path]
P = 5
IDS = torch.tensor([[11, 42, 77, 130, 9, 61]])


def _manifest(**changes: Any) -> Manifest:
    sizes = {"num_virtual_tokens": P, "hidden_size": HIDDEN_SIZE}
    return Manifest(**manifest_fields(**{**sizes, **changes}))


def _prompt(seed: int = 0, **changes: Any) -> SoftPrompt:
    generator = torch.Generator().manual_seed(seed)
    return SoftPrompt(torch.randn(P, HIDDEN_SIZE, generator=generator), _manifest(**changes))


def _load(folder: Path, kind: str) -> PreTrainedModel:
    auto = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    return auto.from_pretrained(folder).eval()


@contextmanager
def silence() -> Iterator[None]:
    """Turn every warning into an error, and every log record from WARNING up."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("", "transformers", "peft", "huggingface_hub")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # PEFT 0.21 asks transformers 5.2x for it, whatever is loaded; no adapter can help it.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert [record.getMessage() for record in records] == []


def test_the_silence_hears_warnings_and_logs() -> None:
    with pytest.raises(UserWarning), silence():
        warnings.warn("loud", UserWarning, stacklevel=1)
    with pytest.raises(AssertionError, match="loud"), silence():
        logging.getLogger("transformers").warning("loud")


@pytest.mark.parametrize("kind", DECODERS)
def test_plain_peft_loads_it_in_silence_and_puts_these_vectors_first(
    kind: str, tiny_base: TinyBase, tmp_path: Path
) -> None:
    prompt = _prompt()
    folder = prompt.save_pretrained(tmp_path / "mood")
    base = _load(tiny_base(kind), kind)
    embedded = torch.cat([prompt.vectors[None], base.get_input_embeddings()(IDS)], dim=1)
    with torch.no_grad():
        expected = base(inputs_embeds=embedded).logits
        with silence():
            model = PeftModel.from_pretrained(base, folder)
        found = model.eval()(input_ids=IDS).logits
    assert_equal_in_float32(found, expected, floor=1e-5)


def test_plain_peft_gives_the_logits_of_the_peft_model_that_was_trained(
    tiny_base: TinyBase, tmp_path: Path
) -> None:
    trained = get_peft_model(
        _load(tiny_base("llama"), "llama"),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P),
    ).eval()
    vectors = trained.prompt_encoder["default"].embedding.weight
    folder = SoftPrompt(vectors, _manifest()).save_pretrained(tmp_path / "mood")
    again = PeftModel.from_pretrained(_load(tiny_base("llama"), "llama"), folder).eval()
    with torch.no_grad():
        assert torch.equal(again(input_ids=IDS).logits, trained(input_ids=IDS).logits)


def test_plain_peft_loads_an_encoder_decoder_prompt_in_silence(
    tiny_base: TinyBase, tmp_path: Path
) -> None:
    prompt = _prompt(task_type="SEQ_2_SEQ_LM")
    folder = prompt.save_pretrained(tmp_path / "mood")
    base = _load(tiny_base("t5"), "t5")
    labels = IDS[:, :3]
    embedded = torch.cat([prompt.vectors[None], base.get_input_embeddings()(IDS)], dim=1)
    with torch.no_grad():
        expected = base(inputs_embeds=embedded, labels=labels).logits
        with silence():
            model = PeftModel.from_pretrained(base, folder)
        found = model.eval()(input_ids=IDS, labels=labels).logits
    assert_equal_in_float32(found, expected, floor=1e-5)


def test_the_config_says_nothing_that_another_machine_could_not_follow(tmp_path: Path) -> None:
    folder = _prompt(base_revision="v1").save_pretrained(tmp_path / "mood")
    config = json.loads((folder / CONFIG).read_text())
    assert config["peft_type"] == "PROMPT_TUNING"
    assert config["prompt_tuning_init"] == "RANDOM"
    assert config["inference_mode"] is True
    assert config["tokenizer_name_or_path"] is None
    assert config["num_transformer_submodules"] == 1
    assert (config["num_virtual_tokens"], config["token_dim"]) == (P, HIDDEN_SIZE)
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", "v1")
    assert set(config) == set(PromptTuningConfig().to_dict()), "PEFT warns of keys it does not know"


def test_no_file_holds_a_local_path(tmp_path: Path) -> None:
    provenance = {"config": {"output_dir": str(tmp_path), "train_file": str(tmp_path / "t.csv")}}
    folder = _prompt(provenance=provenance).save_pretrained(tmp_path / "mood")
    for path in folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
    saved = SoftPrompt.from_pretrained(folder).manifest.provenance
    assert saved["config"] == {"output_dir": tmp_path.name, "train_file": "t.csv"}


def test_a_local_path_as_the_base_is_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(InvalidAdapter, match=r"name='org/name'"):
        _prompt(base_model=str(tmp_path))


def test_comes_back_as_it_went(tmp_path: Path) -> None:
    prompt = _prompt()
    folder = prompt.save_pretrained(tmp_path / "mood")
    again = SoftPrompt.from_pretrained(str(folder))
    assert torch.equal(again.vectors, prompt.vectors)
    assert dataclasses.replace(again.manifest, files={}) == prompt.manifest
    assert (again.num_virtual_tokens, again.hidden_size) == (P, HIDDEN_SIZE)
    assert {path.name for path in folder.iterdir()} == set(FILES)
    assert check_folder(folder).manifest == again.manifest


def test_equal_prompts_give_equal_bytes(tmp_path: Path) -> None:
    folders = [_prompt().save_pretrained(tmp_path / name) for name in ("one", "other")]
    folders.append(SoftPrompt.from_pretrained(folders[0]).save_pretrained(tmp_path / "again"))
    contents = [{name: (folder / name).read_bytes() for name in FILES} for folder in folders]
    assert contents[0] == contents[1] == contents[2]
    assert (
        _prompt(seed=1).save_pretrained(tmp_path / "new").joinpath(WEIGHTS).read_bytes()
        != (contents[0][WEIGHTS])
    )


def test_the_demos_prompt_stays_within_64_kilobytes_in_total(tmp_path: Path) -> None:
    prompt = SoftPrompt(torch.randn(16, 576), _manifest(num_virtual_tokens=16, hidden_size=576))
    folder = prompt.save_pretrained(tmp_path / "mood")
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert 36_864 < sizes[WEIGHTS] < 37_100
    assert sizes[MANIFEST] + sizes[CARD] + sizes[CONFIG] < 20_000
    assert sum(sizes.values()) <= 64_000


def test_a_resized_vocabulary_adds_nothing(tiny_base: TinyBase, tmp_path: Path) -> None:
    """Plain PEFT saves the whole embedding table after a resize; the evidence is beside it."""
    base = _load(tiny_base("llama"), "llama")
    base.resize_token_embeddings(5_000)
    model = get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tmp_path / "peft")
    vectors = model.prompt_encoder["default"].embedding.weight
    folder = SoftPrompt(vectors, _manifest()).save_pretrained(tmp_path / "softhub")
    assert (tmp_path / "peft" / WEIGHTS).stat().st_size > 500_000
    assert (folder / WEIGHTS).stat().st_size < 1_000
    assert list(load_file(folder / WEIGHTS)) == [WEIGHTS_KEY]
    with pytest.raises(UnsupportedAdapter, match="save_embedding_layers=False"):
        SoftPrompt.from_pretrained(tmp_path / "peft")


@pytest.mark.parametrize(("kind", "task_type"), [("llama", "CAUSAL_LM"), ("t5", "SEQ_2_SEQ_LM")])
def test_reads_what_plain_peft_saved(
    kind: str, task_type: str, tiny_base: TinyBase, tmp_path: Path
) -> None:
    model = get_peft_model(
        _load(tiny_base(kind), kind),
        PromptTuningConfig(task_type=task_type, num_virtual_tokens=P, num_transformer_submodules=1),
    )
    model.save_pretrained(tmp_path / "plain")
    prompt = SoftPrompt.from_pretrained(tmp_path / "plain")
    assert torch.equal(prompt.vectors, model.prompt_encoder["default"].embedding.weight)
    assert prompt.manifest.task is None
    assert prompt.manifest.task_type == task_type
    assert prompt.manifest.base_model == f"tiny-{kind}", "of a local path only the name is kept"


def test_of_two_stacked_prompts_the_first_is_the_one_that_peft_uses_and_trains(
    tiny_base: TinyBase, tmp_path: Path
) -> None:
    base = _load(tiny_base("t5"), "t5")
    model = get_peft_model(
        base, PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=P)
    ).eval()
    rows = model.prompt_encoder["default"].embedding.weight
    assert rows.shape == (2 * P, HIDDEN_SIZE), "PEFT's default stacks two"
    labels = IDS[:, :3]

    model(input_ids=IDS, labels=labels).loss.backward()
    assert rows.grad is not None
    assert (rows.grad[:P].abs().sum(dim=1) > 0).all()
    assert (rows.grad[P:] == 0).all(), "the second half never trains"

    model.save_pretrained(tmp_path / "plain")
    prompt = SoftPrompt.from_pretrained(tmp_path / "plain")
    assert torch.equal(prompt.vectors, rows[:P])

    folder = prompt.save_pretrained(tmp_path / "ours")
    ours = PeftModel.from_pretrained(_load(tiny_base("t5"), "t5"), folder).eval()
    with torch.no_grad():
        inputs = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
        stacked = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        single = ours.generate(**inputs, max_new_tokens=8, do_sample=False)
        assert torch.equal(stacked, single)
        rows[P:] = 1e3
        assert torch.equal(model.generate(**inputs, max_new_tokens=8, do_sample=False), single)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reads_half_precision_as_float32(
    dtype: torch.dtype, tiny_base: TinyBase, tmp_path: Path
) -> None:
    model = get_peft_model(
        _load(tiny_base("llama"), "llama"),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P),
    )
    model.prompt_encoder["default"].to(dtype)
    model.save_pretrained(tmp_path / "plain")
    vectors = SoftPrompt.from_pretrained(tmp_path / "plain").vectors
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors, model.prompt_encoder["default"].embedding.weight.float())


def test_a_foreign_adapter_without_a_base_stays_without_one(tmp_path: Path) -> None:
    folder = _prompt(base_model="unknown").save_pretrained(tmp_path / "mood")
    assert json.loads((folder / CONFIG).read_text())["base_model_name_or_path"] is None
    (folder / MANIFEST).unlink()
    assert SoftPrompt.from_pretrained(folder).manifest.base_model == "unknown"


def test_a_tampered_folder_is_refused(tmp_path: Path) -> None:
    folder = _prompt().save_pretrained(tmp_path / "mood")
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InvalidAdapter, match="was changed or damaged"):
        SoftPrompt.from_pretrained(folder)


def test_holds_a_copy_that_training_does_not_change() -> None:
    parameter = torch.nn.Parameter(torch.zeros(P, HIDDEN_SIZE))
    prompt = SoftPrompt(parameter, _manifest())
    with torch.no_grad():
        parameter += 1
    assert prompt.vectors.sum() == 0
    assert prompt.vectors.requires_grad is False
    assert (prompt.vectors.dtype, prompt.vectors.device.type) == (torch.float32, "cpu")


def test_takes_any_dtype_and_layout_of_vectors(tmp_path: Path) -> None:
    wide = torch.randn(HIDDEN_SIZE, P, dtype=torch.float64)
    prompt = SoftPrompt(wide.T, _manifest())
    folder = prompt.save_pretrained(tmp_path / "mood")
    assert torch.equal(SoftPrompt.from_pretrained(folder).vectors, wide.T.float())


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        (torch.zeros(P + 1, HIDDEN_SIZE), "shape"),
        (torch.zeros(1, P, HIDDEN_SIZE), "shape"),
        (torch.full((P, HIDDEN_SIZE), float("nan")), "learning rate"),
        (torch.full((P, HIDDEN_SIZE), 1e300, dtype=torch.float64), "infinite"),
    ],
)
def test_unsound_vectors_are_refused(vectors: torch.Tensor, says: str) -> None:
    with pytest.raises(InvalidAdapter, match=says):
        SoftPrompt(vectors, _manifest())


def test_an_own_card_is_written_and_one_with_terminal_escapes_is_not(tmp_path: Path) -> None:
    folder = _prompt().save_pretrained(tmp_path / "mood", card="# Mine\n")
    assert (folder / CARD).read_text() == "# Mine\n"
    with pytest.raises(InvalidAdapter, match="control character"):
        _prompt().save_pretrained(folder, card="\x1b[2J")
    assert (folder / CARD).read_text() == "# Mine\n"


def test_never_saves_over_a_training_run(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text("{}")
    with pytest.raises(InvalidAdapter, match="would be lost"):
        _prompt().save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["trainer_state.json"]
