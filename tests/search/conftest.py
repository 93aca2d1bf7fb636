"""What several tests of this package share."""

from collections.abc import Iterator

import pytest
import ray

from tests.search.nodes import Nodes


@pytest.fixture
def cluster() -> Iterator[Nodes]:
    """Two nodes with one CPU each, "first" (the head) and "second"; connect, add and kill at will."""
    nodes = Nodes()
    try:
        nodes.add("first")
        nodes.add("second")
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()
