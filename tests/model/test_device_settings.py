"""Choices by type of device: unmeasured devices use those of CPUs, and no choice changes a loss."""

import pytest
import torch

from softhub.model.device_settings import DEVICE_SETTINGS, DeviceSettings, settings_of
from softhub.model.encoding import Candidates
from softhub.model.loading import load_base
from softhub.training.module import PromptTuningModule

CANDIDATES = Candidates(("a", "b"), ((70,), (71, 72, 73)), (0, 1))


def test_a_device_that_was_not_measured_has_the_settings_of_cpus(monkeypatch):
    monkeypatch.setitem(DEVICE_SETTINGS, "cpu", DeviceSettings(least_shared=7))
    assert settings_of(torch.device("cuda:1")).least_shared == 7
    monkeypatch.setitem(DEVICE_SETTINGS, "cuda", DeviceSettings(least_shared=9))
    assert settings_of(torch.device("cuda:1")).least_shared == 9


@pytest.mark.parametrize("packs", [True, False])
def test_a_step_is_packed_where_that_pays(packs, tiny_base, monkeypatch):
    """The base runs once over a packed row of prompt and texts, or twice: the loss is the same."""
    monkeypatch.setitem(DEVICE_SETTINGS, "cpu", DeviceSettings(packs=packs))
    base = load_base(tiny_base("llama"))
    module = PromptTuningModule(base, base.embed(torch.arange(10, 14)), CANDIDATES)
    shapes, ids = [], torch.tensor([[20, 21, 22], [23, 24, 25]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids, dtype=torch.bool)}

    def losses():
        with module.packed_attention():
            return module(**batch, labels=torch.tensor([0, 1]))["losses"]

    losses()  # the first time the base is asked what is exact
    base.model.model.layers[0].register_forward_pre_hook(
        lambda _, given: shapes.append(tuple(given[0].shape[:2]))
    )
    found = losses()
    assert shapes[0] == ((1, 10) if packs else (1, 4))
    monkeypatch.setitem(DEVICE_SETTINGS, "cpu", DeviceSettings(packs=not packs))
    torch.testing.assert_close(losses(), found)
