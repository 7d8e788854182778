"""License terms of base models that must be passed on with derived works."""

import re

_GEMMA = re.compile(r"(?:^|[/_.-])(?:code|pali|med|t5|shield|function|embedding)?gemma", re.I)
_LLAMA = re.compile(r"(?:^|[/_.-])(?:meta-)?llama-?([234](?:\.\d)?)(?![\d.bm])", re.I)
_CODE_LLAMA = re.compile(r"(?:^|[/_.-])codellama", re.I)

_GEMMA_TERMS = (
    "Judging by its name, the base model is a Gemma model. Gemma is provided under and subject "
    "to the [Gemma Terms of Use](https://ai.google.dev/gemma/terms) with their "
    "[Prohibited Use Policy](https://ai.google.dev/gemma/prohibited_use_policy), unless the base "
    "model's own card names another license. A prompt trained with the model may count as a "
    "derivative of it: pass these terms on with the prompt."
)
_LLAMA_TERMS = (
    "**Built with Llama.** Judging by its name, the base model is derived from Llama {version}. "
    "Llama {version} is licensed under the Llama {version} Community License, Copyright © Meta "
    "Platforms, Inc. All Rights Reserved. The license and its Acceptable Use Policy are on the "
    "base model's page. A prompt trained with the model may count as a derivative of it: pass "
    "these terms on with the prompt."
)


def terms_of(base_model: str) -> str | None:
    """Return a Markdown paragraph about a base model's terms, judging by its name.

    None if the name shows no terms that must be passed on.
    """
    if _GEMMA.search(base_model):
        return _GEMMA_TERMS
    version = _llama_version(base_model)
    return _LLAMA_TERMS.format(version=version) if version else None


def license_of(base_model: str) -> str | None:
    """Return the Hub's id of that license (`gemma`, `llama3.2`), for a prompt without its own."""
    if _GEMMA.search(base_model):
        return "gemma"
    version = _llama_version(base_model)
    return f"llama{version}" if version else None


def _llama_version(base_model: str) -> str | None:
    if _CODE_LLAMA.search(base_model):
        return "2"
    found = _LLAMA.search(base_model)
    return found.group(1) if found else None
