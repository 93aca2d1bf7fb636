"""What several tests of this package share."""

from collections.abc import Iterator

import pytest
import ray

from tests.search.nodes import Nodes


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Nodes]:
    """Started once for all tests of a file, because each node takes seconds."""
    nodes = Nodes()
    try:
        nodes.add("first")
        nodes.add("second")
        yield nodes
    finally:
        nodes.shutdown()


@pytest.fixture
def cluster(two_nodes: Nodes) -> Iterator[Nodes]:
    """Two nodes with one CPU each, "first" (the head) and "second"; connect, add and kill at will."""
    yield two_nodes
    ray.shutdown()
    two_nodes.restore("first", "second")
