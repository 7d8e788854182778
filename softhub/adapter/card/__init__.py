"""The card of an adapter: its README.md, rendered from the manifest."""
