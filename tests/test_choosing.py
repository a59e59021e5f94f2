"""The page that users choose by says what the policy does and what there is."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from scripts.choosing import PAGE, STRIP, TESTS_ONLY, matrix, with_matrix

from streamlift.routing.policy import NEVER_CHOSEN, QUALITY
from streamlift.upscalers import upscaler_names
from streamlift.upscalers.presence import OPTIONAL
from streamlift.upscalers.weights import CHECKPOINTS

NAMES = [name for name in upscaler_names() if name not in TESTS_ONLY]
ROWS = {
    match[1]: [cell.strip() for cell in match[0].strip("|").split("|")]
    for match in re.finditer(r"^\| `([a-z0-9-]+)` \|.*\|$", PAGE.read_text(), re.MULTILINE)
}


def test_the_matrix_is_the_policys_own() -> None:
    """`python -m scripts.choosing` writes it anew."""
    page = PAGE.read_text()
    assert with_matrix(page) == page


def test_the_matrix_names_what_is_never_chosen_and_never_takes_it() -> None:
    told = matrix()
    table = [line for line in told.splitlines() if re.match(r"\| \d", line)]
    assert table
    for name in NEVER_CHOSEN:
        assert f"`{name}`" in told
        assert not any(f"`{name}`" in line for line in table)


@pytest.mark.parametrize("name", NAMES)
def test_every_upscaler_has_a_row_with_the_command_that_gets_it(name: str) -> None:
    cells = ROWS[name]
    assert len(cells) == 8
    assert all(cells), cells
    fetched = any(name in checkpoint.upscalers for checkpoint in CHECKPOINTS)
    if fetched or name in OPTIONAL:
        command = f"`streamlift weights pull {name}`" if fetched else "`pip install 'streamlift["
        assert command in cells[-1]


def test_it_names_nothing_that_is_not_there() -> None:
    assert set(ROWS) == set(NAMES)
    assert set(QUALITY) <= set(upscaler_names())
    assert STRIP.is_file()


def test_the_script_needs_no_torch_and_no_pictures_for_the_matrix() -> None:
    code = (
        "import sys; sys.modules.update(torch=None, cv2=None, av=None)\n"
        "from scripts.choosing import matrix; assert 'compact' in matrix()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PAGE.parents[1])
