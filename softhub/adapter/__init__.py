"""The adapter folder as bytes: names, manifest, strict checks. Knows no models and no network."""
