"""Hubs across a network: the Hugging Face Hub, or any endpoint that speaks its protocol."""
