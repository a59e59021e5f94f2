"""The error tree: one root, drawn as it is."""

from __future__ import annotations

import pytest

from streamlift import errors

KINDS = [name for name in errors.__all__ if name[0].isupper()]


def test_every_public_name_is_in_the_tree() -> None:
    for name in KINDS:
        assert issubclass(getattr(errors, name), errors.StreamliftError)


def test_the_drawing_names_every_error() -> None:
    drawing = errors.__doc__ or ""
    assert all(name in drawing for name in KINDS)


def test_an_error_carries_what_was_found_and_what_was_expected() -> None:
    error = errors.UnsupportedSize("too small", found="1x1", expected="64x64")
    assert (str(error), error.found, error.expected) == ("too small", "1x1", "64x64")


@pytest.mark.parametrize(
    ("kind", "parent"),
    [
        (errors.MalformedSdp, errors.MediaError),
        (errors.UnknownStream, errors.StreamError),
        (errors.NoCapacity, errors.BackendError),
        (errors.OutOfMemory, errors.UpscaleError),
    ],
)
def test_kinds_can_be_caught_by_their_family(
    kind: type[errors.StreamliftError], parent: type[errors.StreamliftError]
) -> None:
    with pytest.raises(parent):
        raise kind("message")
