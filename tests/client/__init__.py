"""Tests of the Python client. A package, so that they can share one running farm."""
