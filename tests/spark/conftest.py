"""These tests need ``flagsync[spark]`` and Java 17. Without pyspark there are none of them; ``.ci/run`` has it."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("pyspark") else ["test_*.py"]
