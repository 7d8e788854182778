"""The card."""

from softhub.artefact.manifest import Manifest


def render_card(manifest: Manifest, *, title: str | None = None) -> str:
    """Stub."""
    return "# card\n"
