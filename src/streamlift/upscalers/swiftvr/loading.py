"""From the published files to networks that run: checked, folded once, kept as one smaller file.

The folder has the hub's layout: `transformer/diffusion_pytorch_model.safetensors` (20 GB, float32),
`reae.safetensors`, `prompt_embedding.safetensors`. What runs is 8.7 GB in bfloat16: later starts
read that alone.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from streamlift.config.checks import KINDS
from streamlift.errors import NotReady, WeightsError
from streamlift.upscalers.choices import wrong_setting
from streamlift.upscalers.flashvsr.upscaler import dtype_for
from streamlift.upscalers.swiftvr.config import DitConfig, ModelConfig, swiftvr
from streamlift.upscalers.swiftvr.convert import (
    Layout,
    Progress,
    log_progress,
    write_resumable,
)
from streamlift.upscalers.swiftvr.dit import Block
from streamlift.upscalers.swiftvr.fold import distinct_rows, fold_dit, fold_reae
from streamlift.upscalers.swiftvr.fp8 import Linears
from streamlift.upscalers.swiftvr.model import LAST_CONV, Model
from streamlift.upscalers.swiftvr.published import published_dit_shapes, published_reae_shapes
from streamlift.upscalers.swiftvr.settings import MODEL, settings_from
from streamlift.upscalers.swiftvr.upscaler import SwiftVr
from streamlift.upscalers.weights import (
    CHECKPOINTS,
    Checkpoint,
    WeightStore,
    check_digest,
    digest_of,
)
from streamlift.upscalers.weights.lock import only_one

__all__ = ["Files", "create_swiftvr", "load_model"]

_log = logging.getLogger(__name__)

_FOLDER = "swiftvr"
_DIT = "transformer/diffusion_pytorch_model.safetensors"
_REAE = "reae.safetensors"
_PROMPT = "prompt_embedding.safetensors"
_PROMPT_KEY = "prompt_emb"
_FORMAT = "1"
"""Raise it when the folding changes, so that older files are made anew."""


@dataclass(frozen=True, slots=True)
class Files:
    """The published files, and where the one that runs goes."""

    folder: Path

    @property
    def published(self) -> dict[str, Path]:
        """By the hub's names."""
        return {name: self.folder / name for name in (_DIT, _REAE, _PROMPT)}

    def running(self, dtype: torch.dtype) -> Path:
        kind = str(dtype).removeprefix("torch.")
        return self.folder / "cache" / f"swiftvr-{kind}.safetensors"


def create_swiftvr(
    device: str, settings: Mapping[str, Any], environ: Mapping[str, str] = os.environ
) -> SwiftVr:
    """`swiftvr`, loaded.

    Beside those of `Settings` there are two settings: `path`, a folder with all the files, in place
    of the weights store; `allow_unpinned`, to take files of another sha256 than the published.
    Raises ConfigError, WeightsError, NotReady without the device.
    """
    rest = dict(settings)
    path, allow_unpinned = rest.pop("path", None), rest.pop("allow_unpinned", False)
    if not isinstance(allow_unpinned, bool):
        raise wrong_setting(MODEL, "allow_unpinned", allow_unpinned, KINDS[bool])
    chosen = settings_from(rest)
    if path is None:
        folder = WeightStore.from_environment(environ).directory / _FOLDER
    else:
        folder = Path(str(path)).expanduser()
    place = torch.device(device)
    if place.type == "cuda" and not torch.cuda.is_available():
        raise NotReady("there is no CUDA device", found="cpu only", expected=device)
    model = load_model(
        Files(folder),
        swiftvr(),
        place,
        dtype_for(chosen.precision, place),
        allow_unpinned=allow_unpinned,
        compiled=chosen.compile,
        linears=chosen.linears,
    )
    return SwiftVr("swiftvr", model, chosen)


def load_model(
    files: Files,
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    *,
    allow_unpinned: bool = False,
    table: Iterable[Checkpoint] = CHECKPOINTS,
    compiled: bool = False,
    linears: Linears = Linears.PLAIN,
    progress: Progress | None = None,
) -> Model:
    """The networks on their device; from the smaller file if that was made from these very files.

    Raises WeightsError when a file is missing, damaged, not the pinned one, or of other networks.
    """
    _require(files)
    running = files.running(dtype)
    made_from = json.dumps(
        {name: _stamp(path) for name, path in files.published.items()}, sort_keys=True
    )
    state = _read(running, made_from, device)
    if state is None:
        _check_pinned(files, allow_unpinned, table)
        state = _convert(files, config, dtype, made_from, device, progress)
    with torch.device("meta"):
        model = Model.build(config, state["dit.context_weight"].shape[0])
    for name, network in model.networks().items():
        own = {
            key.removeprefix(f"{name}."): tensor
            for key, tensor in state.items()
            if key.startswith(f"{name}.")
        }
        _same(
            {key: tuple(t.shape) for key, t in network.state_dict().items()},
            {key: tuple(t.shape) for key, t in own.items()},
            running,
        )
        network.load_state_dict(own, assign=True)
    return model.prepare(device, dtype, compiled=compiled, linears=linears)


def _convert(
    files: Files,
    config: ModelConfig,
    dtype: torch.dtype,
    made_from: str,
    device: torch.device,
    progress: Progress | None,
) -> dict[str, Tensor]:
    """Fold into the smaller file, and read that; without room to write, fold into memory."""
    running = files.running(dtype)
    with _Published(files, config) as published:
        layout = published.layout(dtype, {"format": _FORMAT, "made_from": made_from})
        try:
            running.parent.mkdir(parents=True, exist_ok=True)
            with only_one(running):
                if _read(running, made_from, torch.device("meta")) is None:
                    _log.info("making %s of the published weights; this is done once", running)
                    report = progress or log_progress(f"folding {MODEL}")
                    write_resumable(running, layout, published.fold, report)
            state = _read(running, made_from, device)
            if state is not None:
                return state
        except OSError as error:
            # Only the next start is slower for it: a read-only folder of weights is fine.
            _log.warning("cannot keep the folded weights in %s: %s", running.parent, error)
        return {
            name: tensor.to(device=device, dtype=layout.tensors[name][1])
            for name, tensor in published.fold(frozenset())
        }


class _Published:
    """The published files, open: their names and shapes checked, no tensor read yet."""

    def __init__(self, files: Files, config: ModelConfig) -> None:
        self._files, self._config = files, config
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        paths, config = self._files.published, self._config
        try:
            self._dit, self._reae, prompt = (
                self._stack.enter_context(_open(paths[name])) for name in (_DIT, _REAE, _PROMPT)
            )
            _same(published_dit_shapes(config.dit), _shapes(self._dit), paths[_DIT])
            _same(published_reae_shapes(config.reae), _shapes(self._reae), paths[_REAE])
            self.prompt = _prompt(prompt, config, paths[_PROMPT])
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def layout(self, dtype: torch.dtype, metadata: Mapping[str, str]) -> Layout:
        """Of the file that runs: what each network holds, in the order it is folded."""
        with torch.device("meta"):
            model = Model.build(self._config, distinct_rows(self.prompt)[0].shape[0])
        return Layout(
            {
                name: (tuple(t.shape), torch.float32 if name.startswith(LAST_CONV) else dtype)
                for name, t in model.state().items()
            },
            metadata,
        )

    def fold(self, there: frozenset[str]) -> Iterator[tuple[str, Tensor]]:
        """Everything that runs, but for whole blocks of the denoiser that are there already."""
        config = self._config.dit
        every = _block_names(config)
        blocks = [number for number, names in every.items() if not names <= there]
        for name, tensor in fold_dit(self._dit.get_tensor, config, self.prompt, blocks):
            yield f"dit.{name}", tensor
        yield from fold_reae(self._reae.get_tensor, published_reae_shapes(self._config.reae))


def _block_names(config: DitConfig) -> dict[int, set[str]]:
    with torch.device("meta"):
        one = Block(config, 1).state_dict()
    return {
        number: {f"dit.blocks.{number}.{name}" for name in one} for number in range(config.blocks)
    }


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} cannot be loaded: a head that does not fit what follows; `streamlift weights "
            "verify` tells whether it is damaged, `streamlift weights pull swiftvr` replaces it",
            found=str(error),
            expected="a whole .safetensors file",
        ) from error


def _shapes(file: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _prompt(file: Any, config: ModelConfig, path: Path) -> Tensor:
    """(rows, text_dim); two further tensors in the published file have no part in this."""
    shape = _shapes(file).get(_PROMPT_KEY, ())
    width = config.dit.text_dim
    if len(shape) != 3 or shape[0] != 1 or shape[2] != width:
        raise WeightsError(
            f"{path} is not the prompt of SwiftVR", found=shape, expected=f"(1, 512, {width})"
        )
    tensor: Tensor = file.get_tensor(_PROMPT_KEY)
    return tensor[0]


def _same(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    if expected != found:
        wrong = sorted(set(expected.items()) ^ set(found.items()))
        raise WeightsError(
            f"{path} does not hold this network; the first tensors that differ: "
            + ", ".join(dict.fromkeys(name for name, _ in wrong[:6])),
            found=f"{len(found)} tensors",
            expected=f"{len(expected)} tensors",
        )


def _read(path: Path, made_from: str, device: torch.device) -> dict[str, Tensor] | None:
    """The folded tensors, straight onto the device; None if they are of other files or damaged."""
    if not path.is_file():
        return None
    try:
        where = "cpu" if device.type == "meta" else str(device)
        with safe_open(path, framework="pt", device=where) as file:
            noted = file.metadata() or {}
            if noted.get("format") != _FORMAT or noted.get("made_from") != made_from:
                return None
            if device.type == "meta":
                return {}
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, KeyError) as error:
        _log.warning("%s is damaged (%s); it is made anew", path, error)
        return None


def _require(files: Files) -> None:
    for name, path in files.published.items():
        if not path.is_file():
            raise WeightsError(
                f"{name} is missing in {files.folder}; `streamlift weights pull swiftvr` fetches "
                "it, or set `path`",
                found="no such file",
                expected=str(path),
            )


def _check_pinned(files: Files, allow_unpinned: bool, table: Iterable[Checkpoint]) -> None:
    if allow_unpinned:
        return
    rows = {row.name: row for row in table}
    for name, path in files.published.items():
        row = rows[f"{_FOLDER}/{name}"]
        if row.size not in (None, path.stat().st_size):
            check_digest(row, path, f"of {path.stat().st_size} bytes", f"of {row.size} bytes")
        check_digest(row, path, digest_of(path), row.sha256)


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
