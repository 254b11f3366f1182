"""Prints the version of every pinned client, so that a report says who the stranger was."""

import importlib.metadata
import sys

for name in sys.argv[1:]:
    print(name, importlib.metadata.version(name))
