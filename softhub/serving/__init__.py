"""Serve one base model with many prompts over HTTP, with the routes of OpenAI's API."""
