"""Configs that ask for code, say no task type, or are of other methods: changes of a sound one."""

from typing import Any

from softhub.errors import InvalidAdapter, UnsupportedAdapter

Change = tuple[str, str, type[InvalidAdapter], dict[str, Any]]

_REMOTE_CODE: dict[str, dict[str, Any]] = {
    "the config": {"trust_remote_code": True},
    "the config, as text": {"trust_remote_code": "yes"},
    "an object": {"extra": {"trust_remote_code": True}},
    "a list of objects": {"extra": [{"a": [{"trust_remote_code": 1}]}]},
    "the tokenizer's deeper options": {"tokenizer_kwargs": {"init": {"trust_remote_code": True}}},
}
_NO_TASK_TYPE: dict[str, dict[str, Any]] = {
    "left out": {"task_type": ...},
    "with another field for it": {"task_type": None, "task": "CAUSAL_LM"},
    "of two submodules": {"task_type": None, "num_transformer_submodules": 2},
}
_METHODS = {
    "P_TUNING": "get_prompt",
    "LORA": "use it in PEFT",
    "LN_TUNING": "use it in PEFT",
    "prompt_tuning": "use it in PEFT",
    "PROMPT_TUNING ": "use it in PEFT",
}

CONFIG_CHANGES: list[Change] = [
    *[
        (f"remote code in {place}", "an adapter never decides", InvalidAdapter, changes)
        for place, changes in _REMOTE_CODE.items()
    ],
    *[
        (f"tokenizer options {it!r}", "tokenizer_kwargs", InvalidAdapter, {"tokenizer_kwargs": it})
        for it in ([1], 7, True, "trust_remote_code")
    ],
    *[
        (f"no task_type, {name}", "set task_type", UnsupportedAdapter, changes)
        for name, changes in _NO_TASK_TYPE.items()
    ],
    *[
        (f"the way from {method}", says, UnsupportedAdapter, {"peft_type": method})
        for method, says in _METHODS.items()
    ],
    *[
        (f"task_type {kind!r}", "depends on a head", UnsupportedAdapter, {"task_type": kind})
        for kind in ("causal_lm", "CAUSAL_LM ", "", 0, True, ["CAUSAL_LM"])
    ],
]
"""Name, part of the message, class of the refusal, and what is changed."""
