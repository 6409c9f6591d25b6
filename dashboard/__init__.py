"""The web dashboard and the HTTP API."""
