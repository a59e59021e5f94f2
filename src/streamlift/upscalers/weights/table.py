"""The pinned table: every checkpoint that a shipped upscaler can load, and where it comes from.

Sizes and digests come from public manifests that agree with each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from streamlift.errors import WeightsError

__all__ = ["CHECKPOINTS", "Checkpoint", "find_checkpoints"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One file of the table. `name` is its path below the store's directory and a mirror's URL.

    size: bytes, None if unknown. sha256: hex, None if unknown (`unpinned`).
    upscalers: the names that load it with their default settings.
    """

    name: str
    source: str
    size: int | None
    sha256: str | None
    licence: str
    net: str
    upscalers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", p) for p in self.name.split("/")):
            raise WeightsError(
                f"checkpoint name {self.name!r} would leave the weights directory",
                found=self.name,
                expected="folder/file, without '..'",
            )

    @property
    def file(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def pinned(self) -> bool:
        return self.sha256 is not None


def find_checkpoints(
    names: Iterable[str], table: Iterable[Checkpoint] | None = None
) -> tuple[Checkpoint, ...]:
    """Return the rows of `table` (by default CHECKPOINTS) that are meant by `names`.

    A name is a full name, a file name, a folder, or an upscaler.
    Raises WeightsError for a name that means nothing, or a file name that several folders hold.
    """
    known = tuple(CHECKPOINTS if table is None else table)
    found: dict[str, Checkpoint] = {}
    for name in names:
        exact = [c for c in known if c.name == name]
        files = [c for c in known if c.file == name]
        groups = [c for c in known if name in c.upscalers or c.name.split("/")[0] == name]
        if not exact and len(files) > 1:
            raise WeightsError(
                f"several checkpoints are called {name}; say which",
                found=name,
                expected=[c.name for c in files],
            )
        chosen = exact or files or groups
        if not chosen:
            raise WeightsError(
                f"no checkpoint is called {name!r}; `streamlift weights list` names them all",
                found=name,
                expected=[c.name for c in known],
            )
        found.update((c.name, c) for c in chosen)
    return tuple(found.values())


_ESRGAN = "https://github.com/xinntao/Real-ESRGAN/releases/download/"
_ESRGAN_LICENCE = "BSD-3-Clause (of the code it is released with)"
_FLASH = "https://huggingface.co/JunhaoZhuang/"
_FLASH_V1_1 = _FLASH + "FlashVSR-v1.1/resolve/27561b186ded3402d7c975f4fd722e2885b6135f/"
_FLASH_V1 = _FLASH + "FlashVSR/resolve/main/"
_OPENMMLAB = "https://download.openmmlab.com/mmediting/restorers/"
_PP = _OPENMMLAB + "basicvsr_plusplus/"
_PP_FILE = "basicvsr_plusplus_c64n7_8x1_"
_REAL_FILE = "realbasicvsr_c64b20_1x30x8_lr5e-5_150k_reds_20211104-52f77c2c.pth"
_OPENMMLAB_LICENCE = "Apache-2.0 (of the code it is released with)"
_DIT = "diffusion_pytorch_model_streaming_dmd.safetensors"
_SWIFT = "https://huggingface.co/H-oliday/SwiftVR/resolve/743ed2530c550764905400f38eb6cc41af5abc80/"

CHECKPOINTS: tuple[Checkpoint, ...] = (
    Checkpoint(
        name="realesrgan/RealESRGAN_x2plus.pth",
        source=_ESRGAN + "v0.2.1/RealESRGAN_x2plus.pth",
        size=67_061_725,
        sha256="49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
        licence=_ESRGAN_LICENCE,
        net="RRDBNet x2, 23 blocks",
        upscalers=("realesrgan-x2",),
    ),
    Checkpoint(
        name="realesrgan/RealESRGAN_x4plus.pth",
        source=_ESRGAN + "v0.1.0/RealESRGAN_x4plus.pth",
        size=67_040_989,
        sha256="4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        licence=_ESRGAN_LICENCE,
        net="RRDBNet x4, 23 blocks",
    ),
    Checkpoint(
        name="realesrgan/RealESRGAN_x4plus_anime_6B.pth",
        source=_ESRGAN + "v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth",
        size=17_938_799,
        sha256="f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
        licence=_ESRGAN_LICENCE,
        net="RRDBNet x4, 6 blocks",
    ),
    Checkpoint(
        name="realesrgan/realesr-animevideov3.pth",
        source=_ESRGAN + "v0.2.5.0/realesr-animevideov3.pth",
        size=2_504_012,
        sha256="b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
        licence=_ESRGAN_LICENCE,
        net="SRVGGNetCompact x4, 16 convs",
        upscalers=("realesrgan-anime",),
    ),
    Checkpoint(
        name="realesrgan/realesr-general-x4v3.pth",
        source=_ESRGAN + "v0.2.5.0/realesr-general-x4v3.pth",
        size=4_885_111,
        sha256="8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
        licence=_ESRGAN_LICENCE,
        net="SRVGGNetCompact x4, 32 convs",
        upscalers=("realesrgan-general",),
    ),
    Checkpoint(
        name="realesrgan/realesr-general-wdn-x4v3.pth",
        source=_ESRGAN + "v0.2.5.0/realesr-general-wdn-x4v3.pth",
        size=4_885_111,
        sha256="1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca",
        licence=_ESRGAN_LICENCE,
        net="SRVGGNetCompact x4, 32 convs, weak denoising (to interpolate with)",
        upscalers=("realesrgan-general",),
    ),
    Checkpoint(
        name=f"flashvsr-v1.1/{_DIT}",
        source=_FLASH_V1_1 + _DIT,
        size=5_676_070_392,
        sha256="bd28180edcf3446c028e32fc6b731a80bf7e4da2ab4caac3186b9499964d37be",
        licence="Apache-2.0",
        net="FlashVSR v1.1 DiT",
        upscalers=("flashvsr", "flashvsr-full"),
    ),
    Checkpoint(
        name="flashvsr-v1.1/LQ_proj_in.ckpt",
        source=_FLASH_V1_1 + "LQ_proj_in.ckpt",
        size=575_694_948,
        sha256="d6d011cdaaba6a52645086caa08fa04124e746f6ca568140a24007591142bfd2",
        licence="Apache-2.0",
        net="FlashVSR v1.1 low-resolution projector",
        upscalers=("flashvsr", "flashvsr-full"),
    ),
    Checkpoint(
        name="flashvsr-v1.1/TCDecoder.ckpt",
        source=_FLASH_V1_1 + "TCDecoder.ckpt",
        size=189_018_333,
        sha256="e224bdcf2f52745cbf4d393ff5374c2ba09e90285d5d19062d2bf63b915b6161",
        licence="Apache-2.0",
        net="FlashVSR tiny conditional decoder",
        upscalers=("flashvsr",),
    ),
    Checkpoint(
        name="flashvsr-v1.1/Wan2.1_VAE.pth",
        source=_FLASH_V1_1 + "Wan2.1_VAE.pth",
        size=507_609_880,
        sha256="38071ab59bd94681c686fa51d75a1968f64e470262043be31f7a094e442fd981",
        licence="Apache-2.0",
        net="Wan 2.1 VAE",
        upscalers=("flashvsr-full",),
    ),
    Checkpoint(
        # Not in the model repositories; the digest is that of the copy in a public fork.
        name="flashvsr-prompt/posi_prompt.pth",
        source="https://huggingface.co/varb15/posi_prompt/resolve/main/posi_prompt.pth",
        size=None,
        sha256="4601107a11e4e11a936a6b79df579e54dbc99872132bf542151f0ffd65b4b1ef",
        licence="Apache-2.0",
        net="FlashVSR text embedding, both versions",
        upscalers=("flashvsr", "flashvsr-full"),
    ),
    Checkpoint(
        name=f"flashvsr-v1/{_DIT}",
        source=_FLASH_V1 + _DIT,
        size=None,
        sha256="b05be65078a22000d8efdb6ce212133fd043255371c015329e9f3d31645c62c5",
        licence="Apache-2.0",
        net="FlashVSR v1 DiT",
    ),
    Checkpoint(
        name="flashvsr-v1/LQ_proj_in.ckpt",
        source=_FLASH_V1 + "LQ_proj_in.ckpt",
        size=None,
        sha256=None,
        licence="Apache-2.0",
        net="FlashVSR v1 low-resolution projector",
    ),
    Checkpoint(
        name="flashvsr-v1/TCDecoder.ckpt",
        source=_FLASH_V1 + "TCDecoder.ckpt",
        size=189_018_333,
        sha256="e224bdcf2f52745cbf4d393ff5374c2ba09e90285d5d19062d2bf63b915b6161",
        licence="Apache-2.0",
        net="FlashVSR tiny conditional decoder",
    ),
    Checkpoint(
        name="flashvsr-v1/Wan2.1_VAE.pth",
        source=_FLASH_V1 + "Wan2.1_VAE.pth",
        size=None,
        sha256=None,
        licence="Apache-2.0",
        net="Wan 2.1 VAE",
    ),
    Checkpoint(
        name=f"basicvsr/{_REAL_FILE}",
        source=f"{_OPENMMLAB}real_basicvsr/{_REAL_FILE}",
        size=148_239_017,
        sha256="52f77c2c835aaa3fe675b3959b2f85010a6c6f63f77f7e279394646e55a4e376",
        licence=_OPENMMLAB_LICENCE,
        net="RealBasicVSR x4",
        upscalers=("realbasicvsr",),
    ),
    Checkpoint(
        # Trained on REDS, made small by bicubic.
        name=f"basicvsr/{_PP_FILE}600k_reds4_20210217-db622b2f.pth",
        source=f"{_PP}{_PP_FILE}600k_reds4_20210217-db622b2f.pth",
        size=None,
        sha256="db622b2fd4caae0a4c63ab5e54f1cfef7a62a0f3b8ad101aba2eae068d928549",
        licence=_OPENMMLAB_LICENCE,
        net="BasicVSR++ x4, REDS",
        upscalers=("basicvsrpp",),
    ),
    Checkpoint(
        # Trained on Vimeo-90K, blurred, then made small.
        name=f"basicvsr/{_PP_FILE}300k_vimeo90k_bd_20210305-ab315ab1.pth",
        source=f"{_PP}{_PP_FILE}300k_vimeo90k_bd_20210305-ab315ab1.pth",
        size=None,
        sha256="ab315ab1d83d09834d43c8ba17d019282a93f0cbf40bfd49be99dfcebf4c12eb",
        licence=_OPENMMLAB_LICENCE,
        net="BasicVSR++ x4, Vimeo-90K blurred",
    ),
    Checkpoint(
        # Trained on Vimeo-90K, made small by bicubic.
        name=f"basicvsr/{_PP_FILE}300k_vimeo90k_bi_20210305-4ef437e2.pth",
        source=f"{_PP}{_PP_FILE}300k_vimeo90k_bi_20210305-4ef437e2.pth",
        size=None,
        sha256="4ef437e27e7ed468853d9bad2e7a02e50fd4582c986a5cb4231054b0021b2e81",
        licence=_OPENMMLAB_LICENCE,
        net="BasicVSR++ x4, Vimeo-90K bicubic",
    ),
    Checkpoint(
        name="swiftvr/transformer/diffusion_pytorch_model.safetensors",
        source=_SWIFT + "transformer/diffusion_pytorch_model.safetensors",
        size=19_999_235_584,
        sha256="f7ade5b8f7f4ff8b4e26a581772ebe5bcfb6a619ece2dd3483c5395c2d7e1a31",
        licence="Apache-2.0 (so is Wan2.2-TI2V-5B, which it was trained from)",
        net="SwiftVR DiT",
        upscalers=("swiftvr",),
    ),
    Checkpoint(
        name="swiftvr/reae.safetensors",
        source=_SWIFT + "reae.safetensors",
        size=163_797_568,
        sha256="c915205d1833677b6887e2fdf675499d3fc781af0c644c99330f7d22fd855514",
        licence="Apache-2.0",
        net="SwiftVR autoencoder",
        upscalers=("swiftvr",),
    ),
    Checkpoint(
        name="swiftvr/prompt_embedding.safetensors",
        source=_SWIFT + "prompt_embedding.safetensors",
        size=4_202_976,
        sha256="cc4cf7b9aa9def4026bb5952b8aaec846ffc83eee43cafff0d3796b7e9fdf922",
        licence="Apache-2.0",
        net="SwiftVR text embedding",
        upscalers=("swiftvr",),
    ),
)
