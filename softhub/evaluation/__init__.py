"""Evaluating a prompt or the bare base on examples: scores, baselines, calibration, inspection."""
