"""Under ThreadSanitizer only the cases that need no interpreter run."""
import os
import pathlib

if os.environ.get("CTSERVE_TSAN") == "1":
    collect_ignore = [path.name for path in pathlib.Path(__file__).parent.glob("test_*.py")
                      if path.name != "test_threads.py"]
