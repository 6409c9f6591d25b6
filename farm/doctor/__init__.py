"""``farm doctor``: what is the matter with this machine, or with the farm that it belongs to, and what to do about it.

One module per thing that is looked at; ``examination.py`` goes through them in order.
"""
