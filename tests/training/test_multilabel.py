"""Training with several labels a text: the loss by definition, and the road to predictions."""

from dataclasses import replace

import pytest
import torch
from peft import PeftModel, PromptTuningConfig
from transformers import AutoModelForCausalLM

from softhub.evaluation.evaluate import evaluate
from softhub.inference.engine import PromptModel
from softhub.model.encoding import Encoder
from softhub.model.loading import load_base
from softhub.model.prompt import SoftPrompt
from softhub.tasks import Example, Task, Template, Verbalizer
from softhub.training import PromptTrainingArguments, fit
from softhub.training.data import collate, encode_examples
from softhub.training.module import PromptTuningModule

TASK = Task(
    name="aspects",
    kind="classification",
    multilabel=True,
    template=Template("Review: {text}\nIs it about the"),
    verbalizer=Verbalizer.from_mapping({"price": " price?", "phone": " phone?", "x": " mail?"}),
    metrics=("multilabel_micro_f1", "accuracy"),
)
LABELS = ("price", "price;phone", "price", "", "price;x")
EXAMPLES = [
    Example(row={"text": "The price is fair. " * (1 + index % 3)}, label=LABELS[index % 5])
    for index in range(20)
]


pytestmark = pytest.mark.filterwarnings("ignore::softhub.errors.SoftHubWarning")


def test_loss_is_pytorch_s_mean_over_all_decisions(tiny_base):
    base = load_base(tiny_base("llama"))
    task = replace(TASK, class_weights="balanced")
    encoder = Encoder(base.tokenizer, is_encoder_decoder=False)
    candidates = encoder.candidates_of(task)
    rows = encode_examples(encoder, task, EXAMPLES, candidates, None)
    batch = collate([rows[index] for index in range(len(rows))])
    assert batch["labels"].dtype == torch.bool
    assert batch["labels"].tolist()[:2] == [[True, False, False], [True, True, False]]
    assert rows.lengths == [len(ids) for ids in rows.inputs]
    weights = task.training_weights(EXAMPLES)
    vectors = torch.randn(4, base.hidden_size, generator=torch.Generator().manual_seed(0))
    found = PromptTuningModule(base, vectors, candidates, weights)(**batch)
    criterion = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor([*weights.values()]))
    torch.testing.assert_close(found["loss"], criterion(found["logits"], batch["labels"].float()))


def train(base, folder, *, steps=8, accumulation=1):
    args = PromptTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        learning_rate=0.05,
        eval_steps=4,
        save_steps=4,
        logging_steps=1,
        use_cpu=True,
        disable_tqdm=True,
    )
    config = PromptTuningConfig(task_type=base.task_type, num_virtual_tokens=6)
    data = {"train": EXAMPLES, "dev": EXAMPLES[:10]}
    return fit(base, TASK, config, data, args=args, init="labels")


def test_what_was_measured_on_dev_is_what_the_adapter_predicts(tiny_base, tmp_path):
    base = load_base(tiny_base("llama"))
    result = train(base, tmp_path / "run")
    dev = {logs["step"]: logs for logs in result.history if "eval_loss" in logs}
    assert dev[8]["eval_loss"] < dev[4]["eval_loss"]
    folder = result.prompt.save_pretrained(tmp_path / "adapter")
    model = PromptModel(base)
    model.load_prompt(folder, name="aspects")
    evaluation = evaluate(model, TASK, EXAMPLES[:10], prompt="aspects")
    for name in TASK.metrics:
        measured = dev[result.best_step][f"eval_{name}"]
        assert evaluation.metrics[name].value == pytest.approx(measured)
    assert SoftPrompt.from_pretrained(folder).manifest.task["multilabel"] is True
    plain = AutoModelForCausalLM.from_pretrained(tiny_base("llama"))
    assert PeftModel.from_pretrained(plain, folder).active_peft_config.num_virtual_tokens == 6


def test_accumulation_takes_the_same_steps(tiny_base, tmp_path):
    base = load_base(tiny_base("llama"))
    runs = [train(base, tmp_path / str(n), steps=4, accumulation=n) for n in (1, 4)]
    one, four = ([logs["loss"] for logs in run.history if "loss" in logs] for run in runs)
    assert four == pytest.approx(one, abs=1e-4)
