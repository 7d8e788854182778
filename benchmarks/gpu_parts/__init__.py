"""The parts of gpu_check.py. They need this folder and softhub, and neither files nor a network."""
