"""Turns requests into batches and decides which batch goes next."""
