"""Checkpoints and adapters on this machine: what the catalog needs, what of it is here, how to get the rest."""
