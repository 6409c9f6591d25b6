"""Turns batches into pictures on one device."""
