"""Answer texts with one base and many prompts: `PromptModel`, requests, batches and ensembles."""
