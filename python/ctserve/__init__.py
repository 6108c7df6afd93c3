"""ctserve: a Gunicorn-compatible pre-fork server in C with tracing built in."""

__version__ = "0.1.0"
__all__ = ["__version__"]
