"""The user's commands: clients of the HTTP API and nothing else, from any machine."""
