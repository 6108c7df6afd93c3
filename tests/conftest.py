import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import quick  # noqa: E402


def pytest_collection_modifyitems(config, items):
    """In the quick run only a sample of the tests with many cases."""
    if os.environ.get("CTSERVE_QUICK") != "1":
        return
    items[:], left_out = quick.sampled(items)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
