"""Where the learning-curve surrogate is not at hand, what needs it is skipped."""

import pytest

from bench.lcbench import folder

needs_surrogate = pytest.mark.skipif(not folder().is_dir(), reason=f"{folder()} is not there")
