"""The web page of a server: what it serves, adapters of its hub, and a try-out side by side."""
