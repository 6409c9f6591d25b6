"""Trains the demo model: a very small SDXL that draws a simple world as it is told.

    python -m tools.train_demo all --work demo-training

World and words are in ``world`` and ``captions``, what is trained in ``models``, how in ``vae``, ``diffusion`` and
``text``; ``judge`` looks at pictures and says what it sees.
"""
