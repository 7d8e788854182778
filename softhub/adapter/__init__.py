"""The adapter folder as bytes: names, manifest, strict checks; no models and no network."""
