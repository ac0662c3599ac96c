"""What the tests share asserts as plainly as they do, whichever of them imports it first."""

import pytest

pytest.register_assert_rewrite("tests.support")
