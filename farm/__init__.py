"""The ground floor of the render farm: vocabulary, settings, tables, object store, broker.

Nothing here knows the producer, the worker or the dashboard; they all stand on it.
"""

__version__ = "0.1.0"
