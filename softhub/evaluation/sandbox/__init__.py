"""Run generated code with its tests inside bubblewrap."""
