"""The Python client: talks to a farm over its HTTP API, and imports nothing heavy. ``from producer import Farm``."""
