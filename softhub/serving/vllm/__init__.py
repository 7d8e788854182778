"""Soft prompts as models of a stock vLLM server, by a plug-in in vLLM's own process.

Modules of this package run in vLLM's environment: they import neither PEFT nor transformers.
"""
