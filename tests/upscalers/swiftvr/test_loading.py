"""From files to networks: strict, folded once into a smaller file, and going on where it ended."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from streamlift.errors import ConfigError, NotReady, WeightsError
from streamlift.upscalers import create_upscaler
from streamlift.upscalers.swiftvr import loading
from streamlift.upscalers.swiftvr.config import DitConfig, ModelConfig, ReaeConfig, swiftvr
from streamlift.upscalers.swiftvr.convert import Layout, write_resumable
from streamlift.upscalers.swiftvr.dit import Dit
from streamlift.upscalers.swiftvr.fold import fold_dit
from streamlift.upscalers.swiftvr.loading import Files, create_swiftvr, load_model
from streamlift.upscalers.swiftvr.model import LAST_CONV, Model
from streamlift.upscalers.swiftvr.published import published_dit_shapes, published_reae_shapes
from streamlift.upscalers.weights import CHECKPOINTS, Checkpoint, find_checkpoints

CPU = torch.device("cpu")
SMALL = ModelConfig(
    dit=DitConfig(dim=24, heads=2, blocks=3, ffn_dim=32, channels=6, text_dim=8, freq_dim=8),
    reae=ReaeConfig(4, (8, 8, 4, 4), 6),
)
DIT = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Small files in the published form."""
    generator = torch.Generator().manual_seed(4)

    def fill(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        return {n: torch.randn(shape, generator=generator) * 0.3 for n, shape in shapes.items()}

    (tmp_path / "transformer").mkdir()
    save_file(fill(published_dit_shapes(SMALL.dit)), tmp_path / DIT)
    save_file(fill(published_reae_shapes(SMALL.reae)), tmp_path / "reae.safetensors")
    rows = torch.randn(1, 3, 8, generator=generator)
    prompt = torch.cat((rows, rows[:, 2:].expand(-1, 9, -1)), 1).bfloat16()
    unused = {"input_ids": torch.zeros(1, 12, dtype=torch.int64)}
    save_file({"prompt_emb": prompt, **unused}, tmp_path / "prompt_embedding.safetensors")
    return Files(tmp_path)


def _load(files: Files, **more: Any) -> Model:
    dtype = more.pop("dtype", torch.float32)
    return load_model(files, SMALL, CPU, dtype, **{"allow_unpinned": True, **more})


# Once ------------------------------------------------------------------------------------------


def test_a_later_start_reads_the_smaller_file_alone(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _load(files).state()
    monkeypatch.setattr(loading, "fold_dit", _never)
    monkeypatch.setattr(loading, "digest_of", _never)
    second = _load(files).state()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_runs_is_rounded_once_and_the_last_convolution_not_at_all(files: Files) -> None:
    wide, half = _load(files).state(), _load(files, dtype=torch.bfloat16).state()
    for name, tensor in half.items():
        kind = torch.float32 if name.startswith(LAST_CONV) else torch.bfloat16
        assert tensor.dtype is kind, name
        assert torch.equal(tensor, wide[name].to(kind)), name


def test_equal_rows_of_the_prompt_are_one_row_that_weighs_more(files: Files) -> None:
    model = _load(files)
    weights = model.dit.context_weight
    assert sorted(weights.exp().round().int().tolist()) == [1, 1, 10]
    assert model.dit.uneven
    uneven = Dit(SMALL.dit, 3)
    uneven.weigh_context()
    assert not uneven.uneven


def test_other_files_are_folded_anew(files: Files) -> None:
    first = _load(files).state()["encoder.layers.0.bias"]
    reae = files.folder / "reae.safetensors"
    tensors = load_file(reae)
    tensors["encoder.0.bias"] += 1
    save_file(tensors, reae)
    assert torch.equal(_load(files).state()["encoder.layers.0.bias"], first + 1)


def test_progress_rises_to_all_bytes(files: Files) -> None:
    seen: list[tuple[int, int]] = []
    _load(files, progress=lambda done, total: seen.append((done, total)))
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert done[0] == 0
    assert seen[-1][0] == seen[-1][1] == sum(t.nbytes for t in _load(files).state().values())


def test_a_folder_that_cannot_be_written_is_no_hindrance(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = _load(files).state()
    files.running(torch.float32).unlink()

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loading, "write_resumable", full)
    with caplog.at_level(logging.WARNING):
        found = _load(files).state()
    assert "cannot keep the folded weights" in caplog.text
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# Going on --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_after", [1, 22, 60])
def test_a_conversion_that_was_cut_off_goes_on_where_it_ended(
    files: Files, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    whole = files.running(torch.bfloat16)
    _load(files, dtype=torch.bfloat16)
    expected = whole.read_bytes()
    whole.unlink()
    steps = 0

    def cut(_done: int, _total: int) -> None:
        nonlocal steps
        steps += 1
        if steps > stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _load(files, dtype=torch.bfloat16, progress=cut)
    part = whole.with_name(whole.name + ".part")
    assert part.exists()
    with part.open("ab") as file:
        file.write(b"torn")  # half of the next tensor
    seen: list[int] = []
    folded: list[int] = []
    fold = fold_dit

    def watch(read: Any, config: DitConfig, prompt: Tensor, blocks: list[int]) -> Any:
        folded.extend(blocks)
        return fold(read, config, prompt, blocks)

    monkeypatch.setattr(loading, "fold_dit", watch)
    _load(files, dtype=torch.bfloat16, progress=lambda done, total: seen.append(done))
    assert whole.read_bytes() == expected
    assert not part.exists()
    if stop_after == 60:
        assert seen[0] > 0.4 * seen[-1]
        assert folded == []  # every block was there: none is computed again
    if stop_after == 22:
        assert folded == [1, 2]


def test_what_is_left_of_other_files_is_begun_anew(files: Files) -> None:
    whole = files.running(torch.float32)
    whole.parent.mkdir()
    part = whole.with_name(whole.name + ".part")
    part.write_bytes(b"\x10\0\0\0\0\0\0\0" + b"x" * 100_000)
    _load(files)
    assert load_file(whole)["decoder.layers.22.bias"].shape == (12,)


def test_a_writer_refuses_what_it_was_not_told_of(tmp_path: Path) -> None:
    layout = Layout({"a": ((2,), torch.float32), "b": ((3,), torch.float32)}, {})
    for given, words in (
        ([("b", torch.zeros(3))], "in its turn"),
        ([("a", torch.zeros(3))], "another shape"),
        ([("a", torch.zeros(2))], "missing"),
    ):
        with pytest.raises(WeightsError, match=words):
            write_resumable(tmp_path / "f.safetensors", layout, lambda _there, g=given: g)  # type: ignore[misc]
        assert not (tmp_path / "f.safetensors").exists()


def test_the_full_size_file_that_runs_is_known_before_it_is_made() -> None:
    config = swiftvr()
    with torch.device("meta"):
        state = Model.build(config, 512).state()
    layout = Layout({n: (tuple(t.shape), torch.bfloat16) for n, t in state.items()}, {})
    total = list(layout.ends().values())[-1]
    dit = sum(t.numel() for n, t in state.items() if n.startswith("dit."))
    context = 2 * 30 * 512 * 3072
    assert total == pytest.approx(8.97e9, rel=0.01)
    assert (dit - context) * 2 == pytest.approx(8.7e9, rel=0.01)  # after freeing 655 M constants
    head = layout.header()
    assert len(head) % 8 == 0
    assert json.loads(head[8:])["dit.blocks.29.ffn.2.bias"]["shape"] == [3072]


# Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [DIT, "reae.safetensors", "prompt_embedding.safetensors"])
def test_a_missing_file_is_named_with_what_fetches_it(files: Files, name: str) -> None:
    (files.folder / name).unlink()
    with pytest.raises(WeightsError, match="weights pull swiftvr"):
        _load(files)


@pytest.mark.parametrize("how", ["missing", "more", "shape"])
@pytest.mark.parametrize(
    ("file", "tensor"), [(DIT, "blocks.1.norm2.bias"), ("reae.safetensors", "decoder.22.bias")]
)
def test_a_tensor_that_is_not_the_networks_is_named(
    files: Files, file: str, tensor: str, how: str
) -> None:
    tensors = load_file(files.folder / file)
    if how == "missing":
        del tensors[tensor]
    else:
        tensors["surplus" if how == "more" else tensor] = torch.zeros(5)
    save_file(tensors, files.folder / file)
    with pytest.raises(WeightsError, match="surplus" if how == "more" else tensor):
        _load(files)
    assert not files.running(torch.float32).exists()


def test_a_file_that_is_no_checkpoint_is_refused(files: Files) -> None:
    (files.folder / DIT).write_bytes(b"<html>not found</html>")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        _load(files)


def test_a_prompt_of_another_width_is_refused(files: Files) -> None:
    path = files.folder / "prompt_embedding.safetensors"
    save_file({"prompt_emb": torch.zeros(1, 4, 9)}, path)
    with pytest.raises(WeightsError, match="not the prompt"):
        _load(files)


def test_files_are_held_to_their_pinned_digests(files: Files) -> None:
    def row(name: str, digest: str | None = None) -> Checkpoint:
        path = files.folder / name
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        return Checkpoint(
            f"swiftvr/{name}", "", path.stat().st_size, digest or found, "", "", ("swiftvr",)
        )

    names = list(files.published)
    good = [row(name) for name in names]
    bad = [row(names[0], "0" * 64), *good[1:]]
    with pytest.raises(WeightsError, match="damaged, or another file"):
        _load(files, allow_unpinned=False, table=bad)
    with pytest.raises(WeightsError, match="damaged, or another file"):
        _load(files, allow_unpinned=False)  # the published ones are larger
    _load(files, allow_unpinned=False, table=good)


def test_the_table_has_the_files_that_are_loaded() -> None:
    rows = find_checkpoints(["swiftvr"])
    assert {row.name for row in rows} == {f"swiftvr/{n}" for n in Files(Path()).published}
    assert all(row.pinned and row.size for row in rows)
    assert {row for row in CHECKPOINTS if "swiftvr" in row.upscalers} == set(rows)


def test_the_registry_asks_for_weights_and_device(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="weights pull swiftvr"):
        create_upscaler("swiftvr", settings={"path": str(tmp_path)})
    environ = {"STREAMLIFT_WEIGHTS_DIR": str(tmp_path)}
    with pytest.raises(WeightsError) as missing:
        create_swiftvr("cpu", {}, environ)
    assert missing.value.expected == str(tmp_path / "swiftvr" / DIT)
    if not torch.cuda.is_available():
        with pytest.raises(NotReady, match="no CUDA device"):
            create_swiftvr("cuda:0", {}, environ)
    with pytest.raises(ConfigError, match="allow_unpinned"):
        create_swiftvr("cpu", {"allow_unpinned": 1}, environ)


def _never(*_args: object) -> None:
    raise AssertionError("this was to be read from the smaller file")
