"""From the published files to networks that run: checked, folded once, kept as one cache file.

The files are those of the hub repositories, plus the prompt, which lies elsewhere. v1 and v1.1
have the same names and shapes, and the wrong pair only looks worse; so which they are is decided
by sha256, or said by the user, and never guessed.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from streamlift.errors import ConfigError, NotReady, WeightsError
from streamlift.upscalers.flashvsr.config import (
    DecoderConfig,
    ModelConfig,
    Version,
    flashvsr,
    flashvsr_full,
)
from streamlift.upscalers.flashvsr.decoder import TcDecoder
from streamlift.upscalers.flashvsr.model import Model
from streamlift.upscalers.flashvsr.published import (
    PublishedDit,
    PublishedProjector,
    fold_dit,
    fold_projector,
)
from streamlift.upscalers.flashvsr.settings import settings_from
from streamlift.upscalers.flashvsr.upscaler import FlashVsr, dtype_for
from streamlift.upscalers.flashvsr.vae import WanVae
from streamlift.upscalers.weights import (
    CHECKPOINTS,
    Checkpoint,
    WeightStore,
    check_digest,
    digest_of,
    load_checkpoint,
    load_state_dict,
)

__all__ = ["Files", "create_flashvsr", "identify", "load_model"]

_log = logging.getLogger(__name__)

_DIT = "diffusion_pytorch_model_streaming_dmd.safetensors"
_PROJECTOR = "LQ_proj_in.ckpt"
_DECODER = "TCDecoder.ckpt"
_VAE = "Wan2.1_VAE.pth"
_PROMPT = "posi_prompt.pth"
_FAMILY = "flashvsr-"
_FORMAT = "1"
"""Raise it when the folding changes, so that older caches are made anew."""


@dataclass(frozen=True, slots=True)
class Files:
    """The published files of one pipeline, and where its cache goes."""

    dit: Path
    projector: Path
    decoder: Path
    prompt: Path
    cache: Path

    @classmethod
    def in_folder(cls, folder: Path, *, full: bool, prompt: Path | None = None) -> Files:
        """Under their hub names; the prompt in the same folder unless given."""
        return cls(
            dit=folder / _DIT,
            projector=folder / _PROJECTOR,
            decoder=folder / (_VAE if full else _DECODER),
            prompt=prompt or folder / _PROMPT,
            cache=folder / "cache",
        )

    def each(self) -> tuple[Path, ...]:
        return (self.dit, self.projector, self.decoder, self.prompt)


def create_flashvsr(
    name: str, device: str, settings: Mapping[str, Any], environ: Mapping[str, str] = os.environ
) -> FlashVsr:
    """`flashvsr` or `flashvsr-full`, loaded.

    Beside those of `Settings` there are three settings: `path`, a folder with all the files, in
    place of the weights store; `version`, "v1" or "v1.1"; `allow_unpinned`, to take files whose
    sha256 is not known. Raises ConfigError, WeightsError, NotReady without the device.
    """
    rest = dict(settings)
    path, version = rest.pop("path", None), rest.pop("version", None)
    allow_unpinned = rest.pop("allow_unpinned", False)
    chosen = settings_from(rest)
    full = name == "flashvsr-full"
    wanted = _version(version)
    if path is None:
        wanted = wanted or Version.V1_1
        store = WeightStore.from_environment(environ).directory
        prompt = store / f"{_FAMILY}prompt" / _PROMPT
        files = Files.in_folder(store / f"{_FAMILY}{wanted}", full=full, prompt=prompt)
    else:
        files = Files.in_folder(Path(path).expanduser(), full=full)
    place = _device(device)
    config = flashvsr_full(tiled=chosen.vae_tiled) if full else flashvsr()
    dtype = dtype_for(chosen.precision, place)
    model = load_model(
        files,
        config,
        place,
        dtype,
        version=wanted,
        allow_unpinned=allow_unpinned is True,
        compiled=chosen.compile,
    )
    return FlashVsr(name, model, chosen)


def load_model(
    files: Files,
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    *,
    version: Version | None = None,
    allow_unpinned: bool = False,
    table: Iterable[Checkpoint] = CHECKPOINTS,
    compiled: bool = False,
) -> Model:
    """The pipeline on its device; from the cache if that was made from these very files.

    `config.version` is replaced by what the files are. Raises WeightsError, see `identify`.
    """
    _require(files)
    cache = files.cache / f"{files.decoder.stem}-{str(dtype).removeprefix('torch.')}.safetensors"
    made_from = {path.name: _stamp(path) for path in files.each()}
    found = _read_cache(cache, made_from, version, device)
    if found is None:
        identity = identify(files, version, allow_unpinned=allow_unpinned, table=table)
        state = _convert(files, config, dtype)
        _write_cache(cache, state, made_from, identity)
    else:
        identity, state = found
    rows = state["dit.context_weight"].shape[0]
    with torch.device("meta"):
        model = Model.build(replace(config, version=identity), rows)
    for name, network in model.networks().items():
        _load(network, _below(f"{name}.", state), cache)
    return model.prepare(device, dtype, compiled=compiled)


def identify(
    files: Files,
    version: Version | None,
    *,
    allow_unpinned: bool = False,
    table: Iterable[Checkpoint] = CHECKPOINTS,
) -> Version:
    """Which version the files are, by their sha256.

    Raises WeightsError when a file is missing or not the pinned one, when DiT and projector belong
    to different versions, or not to the `version` asked for, and when nothing tells which it is.
    """
    _require(files)
    rows = [row for row in table if row.name.startswith(_FAMILY)]
    digests = {path: digest_of(path) for path in files.each()}
    claims = {path: _claim(path, digests[path], rows) for path in (files.dit, files.projector)}
    known = {path.name: claim.value for path, claim in claims.items() if claim is not None}
    if len(set(known.values())) > 1:
        raise WeightsError(
            "DiT and projector are of different FlashVSR versions; take both from one repository",
            found=known,
            expected="one version",
        )
    decided = version or claims[files.dit] or claims[files.projector]
    if decided is None:
        raise WeightsError(
            f"cannot tell whether {files.dit.parent} holds FlashVSR v1 or v1.1, or a damaged copy: "
            "the sha256 of its DiT is not known; fetch it again, or set `version` (v1 or v1.1) "
            "and `allow_unpinned`",
            found=digests[files.dit],
            expected={row.name: row.sha256 for row in rows if row.file == _DIT},
        )
    if known and decided.value not in known.values():
        raise WeightsError(
            f"{files.dit.parent} does not hold FlashVSR {decided}; set the right `version`",
            found=known,
            expected=decided.value,
        )
    if not allow_unpinned:
        for path, digest in digests.items():
            _check_pinned(path, digest, decided, rows)
    return decided


def _convert(files: Files, config: ModelConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """Everything the running networks need, in the precision they run in."""
    _log.info("folding the FlashVSR weights of %s; this is done once", files.dit.parent)
    with torch.device("meta"):
        dit = PublishedDit(config.dit)
        projector = PublishedProjector(config.projector)
        decoder = _decoder(config)
    _load(dit, load_state_dict(files.dit), files.dit)
    _load(projector, load_state_dict(files.projector), files.projector)
    tensors = load_state_dict(files.decoder, wrappers=("model_state", "state_dict"))
    if isinstance(decoder, WanVae):
        # The encoder and its output layer have no part in this.
        tensors = {k: t for k, t in tensors.items() if k.startswith(("decoder.", "conv2."))}
    _load(decoder, tensors, files.decoder)
    prompt = _read_prompt(files.prompt, config)
    parts = {
        "dit": fold_dit(dit.float(), prompt.float(), dtype),
        "projector": fold_projector(projector),
        "decoder": decoder.state_dict(),
    }
    # A fresh copy of each: published tensors may be views that keep a larger storage alive.
    return {
        f"{network}.{name}": tensor.to(dtype, copy=True).contiguous()
        for network, state in parts.items()
        for name, tensor in state.items()
    }


def _read_prompt(path: Path, config: ModelConfig) -> Tensor:
    loaded = load_checkpoint(path)
    width = config.dit.text_dim
    if not isinstance(loaded, Tensor) or loaded.ndim != 3 or loaded.shape[2] != width:
        found = tuple(loaded.shape) if isinstance(loaded, Tensor) else type(loaded).__name__
        raise WeightsError(
            f"{path} is not the prompt of FlashVSR", found=found, expected=f"(1, 512, {width})"
        )
    return loaded[0]


def _decoder(config: ModelConfig) -> TcDecoder | WanVae:
    decoder = config.decoder
    return TcDecoder(decoder) if isinstance(decoder, DecoderConfig) else WanVae(decoder)


def _load(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Strictly, by name and shape, taking the tensors themselves."""
    expected = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if expected != found:
        wrong = sorted(set(expected.items()) ^ set(found.items()))
        raise WeightsError(
            f"{path} does not hold this network; the first tensors that differ: "
            + ", ".join(dict.fromkeys(name for name, _ in wrong[:6])),
            found=f"{len(found)} tensors",
            expected=f"{len(expected)} tensors",
        )
    network.load_state_dict(dict(tensors), assign=True)


def _read_cache(
    cache: Path,
    made_from: Mapping[str, list[int]],
    version: Version | None,
    device: torch.device,
) -> tuple[Version, dict[str, Tensor]] | None:
    """The cached tensors, straight onto the device; None if they are of other files or damaged."""
    if not cache.is_file():
        return None
    try:
        with safe_open(cache, framework="pt", device=str(device)) as file:
            noted = file.metadata() or {}
            current = noted.get("made_from") == json.dumps(made_from, sort_keys=True)
            if noted.get("format") != _FORMAT or not current:
                return None
            identity = Version(noted["version"])
            if version not in (None, identity):
                return None
            names = file.keys()
            return identity, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, KeyError) as error:
        _log.warning("%s is damaged (%s); it is made anew", cache, error)
        return None


def _write_cache(
    cache: Path, state: dict[str, Tensor], made_from: Mapping[str, list[int]], identity: Version
) -> None:
    """All or nothing: written beside it, then renamed."""
    metadata = {
        "format": _FORMAT,
        "version": identity.value,
        "made_from": json.dumps(made_from, sort_keys=True),
    }
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=cache.parent, suffix=".part")
        os.close(handle)
        part = Path(name)
        try:
            save_file(state, part, metadata)
            os.replace(part, cache)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        # Only the next start is slower for it: a read-only folder of weights is fine.
        _log.warning("cannot keep the folded weights in %s: %s", cache.parent, error)


def _require(files: Files) -> None:
    for path in files.each():
        if not path.is_file():
            more = (
                "; it is not in the FlashVSR repositories: `streamlift weights pull "
                f"{_FAMILY}prompt/{_PROMPT}` fetches it"
                if path == files.prompt
                else "; `streamlift weights pull flashvsr` fetches it, or set `path`"
            )
            raise WeightsError(
                f"{path.name} is missing in {path.parent}{more}",
                found="no such file",
                expected=str(path),
            )


def _check_pinned(path: Path, digest: str, version: Version, rows: Iterable[Checkpoint]) -> None:
    ours = (f"{_FAMILY}{version}/{path.name}", f"{_FAMILY}prompt/{path.name}")
    pinned = next((row for row in rows if row.name in ours), None)
    if pinned is None or not pinned.pinned:
        raise WeightsError(
            f"no sha256 of {path.name} of FlashVSR {version} is known, so it cannot be checked; "
            "set `allow_unpinned` to trust it",
            found=f"sha256 {digest}, {path.stat().st_size} bytes",
            expected="a pinned file",
        )
    check_digest(pinned, path, digest, pinned.sha256)


def _claim(path: Path, digest: str, rows: Iterable[Checkpoint]) -> Version | None:
    """The version that alone has this file."""
    for version in Version:
        if any(
            row.name == f"{_FAMILY}{version}/{path.name}" and row.sha256 == digest for row in rows
        ):
            return version
    return None


def _version(value: object) -> Version | None:
    if value is None:
        return None
    if value in list(Version):
        return Version(str(value))
    raise ConfigError(
        "FlashVSR setting version has the wrong value",
        found=value,
        expected=[version.value for version in Version],
    )


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise NotReady("there is no CUDA device", found="cpu only", expected=name)
    return device


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
