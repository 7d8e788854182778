"""Tests of the hub, on disk and over the protocol."""
