"""Tests import the project as its scripts do: from the repository's root."""

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# Compiled models of tests stay away from the user's own.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cspyolo-tests-")
