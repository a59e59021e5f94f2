"""The API called in-process, as the tests of the API do."""

from tests.api.conftest import call

__all__ = ["call"]
