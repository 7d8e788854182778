"""Answering texts with one base and many prompts: `PromptModel`, requests and ensembles."""
