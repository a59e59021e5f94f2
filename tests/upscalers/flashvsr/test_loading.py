"""From published files to a model: strict, identified, cached, with one clear error each."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from streamlift.errors import ConfigError, NotReady, WeightsError
from streamlift.upscalers import create_upscaler
from streamlift.upscalers.flashvsr import loading
from streamlift.upscalers.flashvsr.config import ModelConfig, VaeConfig, Version, tiny_random
from streamlift.upscalers.flashvsr.decoder import TcDecoder
from streamlift.upscalers.flashvsr.loading import Files, create_flashvsr, identify, load_model
from streamlift.upscalers.flashvsr.model import Model
from streamlift.upscalers.flashvsr.published import PublishedDit, PublishedProjector
from streamlift.upscalers.flashvsr.vae import WanVae
from streamlift.upscalers.weights import Checkpoint, digest_of

CPU = torch.device("cpu")
Table = tuple[Checkpoint, ...]


@pytest.fixture
def config() -> ModelConfig:
    return tiny_random()


@pytest.fixture
def files(tmp_path: Path, config: ModelConfig) -> Files:
    return _publish(tmp_path, config, seed=1)


@pytest.fixture
def table(files: Files) -> Table:
    return _pin(files, "v1.1")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_published_files_load_and_the_cache_gives_the_same_model(
    files: Files, table: Table, config: ModelConfig, dtype: torch.dtype
) -> None:
    first = load_model(files, config, CPU, dtype, table=table)
    assert first.config.version is Version.V1_1
    assert first.dtype is dtype
    again = load_model(files, config, CPU, dtype, table=())
    assert again.config == first.config
    _same(first, again)
    assert not list(files.cache.glob("*.part"))


def test_the_cache_is_not_hashed_again_but_made_anew_when_a_file_changes(
    files: Files, table: Table, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_model(files, config, CPU, torch.float32, table=table)
    hashed: list[Path] = []
    digest = digest_of

    def watch(path: Path) -> str:
        hashed.append(path)
        return digest(path)

    monkeypatch.setattr(loading, "digest_of", watch)
    load_model(files, config, CPU, torch.float32, table=table)
    assert hashed == []
    os.utime(files.dit, ns=(1, 1))
    load_model(files, config, CPU, torch.float32, table=table)
    assert files.dit in hashed


def test_a_damaged_cache_is_made_anew(
    files: Files, table: Table, config: ModelConfig, caplog: pytest.LogCaptureFixture
) -> None:
    first = load_model(files, config, CPU, torch.float32, table=table)
    (cache,) = files.cache.glob("*.safetensors")
    cache.write_bytes(cache.read_bytes()[:-100])
    _same(load_model(files, config, CPU, torch.float32, table=table), first)
    assert "is damaged" in caplog.text


def test_a_folder_that_cannot_be_written_only_costs_the_cache(
    files: Files, table: Table, config: ModelConfig, caplog: pytest.LogCaptureFixture
) -> None:
    files.cache.write_text("a file where the folder should be")
    load_model(files, config, CPU, torch.float32, table=table)
    assert "cannot keep the folded weights" in caplog.text


def test_full_takes_the_decoding_half_of_the_vae(tmp_path: Path, config: ModelConfig) -> None:
    config = replace(config, decoder=VaeConfig(base=4))
    files = _publish(tmp_path, config, seed=1)
    model = load_model(files, config, CPU, torch.float32, table=_pin(files, "v1.1"))
    assert isinstance(model.decoder, WanVae)


@pytest.mark.parametrize("name", ["v1", "v1.1"])
def test_the_version_follows_from_the_digests(files: Files, config: ModelConfig, name: str) -> None:
    assert identify(files, None, table=_pin(files, name)) is Version(name)


def test_unknown_files_need_both_a_version_and_leave(files: Files) -> None:
    with pytest.raises(WeightsError, match="cannot tell whether"):
        identify(files, None, table=())
    with pytest.raises(WeightsError, match="cannot be checked"):
        identify(files, Version.V1, table=())
    assert identify(files, Version.V1, allow_unpinned=True, table=()) is Version.V1


def test_a_dit_of_one_version_with_the_projector_of_the_other_is_refused(
    files: Files, table: Table
) -> None:
    mixed = tuple(
        replace(row, name=row.name.replace("v1.1", "v1")) if "LQ_proj" in row.name else row
        for row in table
    )
    with pytest.raises(WeightsError, match="different FlashVSR versions"):
        identify(files, None, allow_unpinned=True, table=mixed)


def test_the_wrong_version_setting_is_refused(files: Files, table: Table) -> None:
    with pytest.raises(WeightsError, match="does not hold FlashVSR v1;"):
        identify(files, Version.V1, allow_unpinned=True, table=table)


@pytest.mark.parametrize("which", ["dit", "projector", "decoder"])
def test_a_truncated_file_is_refused_by_its_digest(
    files: Files, table: Table, config: ModelConfig, which: str
) -> None:
    path: Path = getattr(files, which)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="damaged"):
        load_model(files, config, CPU, torch.float32, table=table)


@pytest.mark.parametrize("which", ["dit", "projector"])
def test_a_truncated_file_taken_on_trust_is_still_one_clear_error(
    files: Files, config: ModelConfig, which: str
) -> None:
    path: Path = getattr(files, which)
    path.write_bytes(path.read_bytes()[:-10_000])
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_model(
            files,
            config,
            CPU,
            torch.float32,
            version=Version.V1_1,
            allow_unpinned=True,
            table=(),
        )


def test_a_missing_prompt_says_where_it_is(files: Files, table: Table, config: ModelConfig) -> None:
    files.prompt.unlink()
    with pytest.raises(WeightsError, match=r"weights pull flashvsr-prompt/posi_prompt\.pth"):
        load_model(files, config, CPU, torch.float32, table=table)


def test_a_network_of_other_names_is_refused(
    files: Files, table: Table, config: ModelConfig
) -> None:
    other = replace(config, dit=replace(config.dit, blocks=3))
    with pytest.raises(WeightsError, match=r"does not hold this network.*blocks\.2"):
        load_model(files, other, CPU, torch.float32, table=table)


def test_a_prompt_that_is_no_prompt_is_refused(files: Files, config: ModelConfig) -> None:
    torch.save({"prompt": torch.zeros(1)}, files.prompt)
    with pytest.raises(WeightsError, match="is not the prompt"):
        load_model(files, config, CPU, torch.float32, table=_pin(files, "v1"))


def test_the_store_without_weights_names_the_command_that_fetches_them(tmp_path: Path) -> None:
    environ = {"STREAMLIFT_WEIGHTS_DIR": str(tmp_path)}
    with pytest.raises(WeightsError, match="weights pull flashvsr"):
        create_flashvsr("flashvsr", "cpu", {}, environ)


@pytest.mark.parametrize("name", ["flashvsr", "flashvsr-full"])
def test_the_registry_builds_from_a_folder(
    tmp_path: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "flashvsr-full":
        config = replace(config, decoder=VaeConfig(base=4))
    _publish(tmp_path, config, seed=1)
    monkeypatch.setattr(loading, "flashvsr", lambda: config)
    monkeypatch.setattr(loading, "flashvsr_full", lambda tiled: config)
    settings = {"path": str(tmp_path), "version": "v1", "allow_unpinned": True, "start": "full"}
    upscaler = create_upscaler(name, settings=settings)
    assert upscaler.spec.name == name
    assert upscaler.spec.first == 25


def test_a_wrong_version_word_is_refused() -> None:
    with pytest.raises(ConfigError, match="version"):
        create_upscaler("flashvsr", settings={"version": "v2"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_reported() -> None:
    with pytest.raises(NotReady, match="no CUDA device"):
        create_upscaler("flashvsr", device="cuda:0", settings={})


def _publish(folder: Path, config: ModelConfig, *, seed: int) -> Files:
    """Random weights in the published form: a safetensors file, pickles of tensors, a prompt."""
    full = isinstance(config.decoder, VaeConfig)
    files = Files.in_folder(folder, full=full)
    generator = torch.Generator().manual_seed(seed)
    save_file(_filled(PublishedDit(config.dit), generator), files.dit)
    torch.save(_filled(PublishedProjector(config.projector), generator), files.projector)
    if isinstance(config.decoder, VaeConfig):
        tensors = _filled(WanVae(config.decoder), generator)
        tensors |= {"encoder.conv1.weight": torch.zeros(3), "conv1.bias": torch.zeros(3)}
        torch.save({"model_state": tensors}, files.decoder)
    else:
        torch.save(_filled(TcDecoder(config.decoder), generator), files.decoder)
    prompt = torch.randn(1, 6, config.dit.text_dim, generator=generator)
    prompt[:, 3:] = prompt[:, 3:4]
    torch.save(prompt.bfloat16(), files.prompt)
    return files


def _filled(network: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    return {
        name: torch.randn(tensor.shape, generator=generator) * 0.05
        for name, tensor in network.state_dict().items()
    }


def _pin(files: Files, version: str) -> Table:
    """A table that holds exactly these files, as this version."""

    def row(path: Path, folder: str) -> Checkpoint:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        size = path.stat().st_size
        return Checkpoint(f"{folder}/{path.name}", "", size, digest, "", "")

    own = [row(path, f"flashvsr-{version}") for path in files.each()[:3]]
    return (*own, row(files.prompt, "flashvsr-prompt"))


def _same(one: Model, other: Model) -> None:
    first, second = one.state(), other.state()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
