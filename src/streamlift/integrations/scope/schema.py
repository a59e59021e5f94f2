"""The fields of the post-processor as Scope shows them; all but the device change while it runs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

if TYPE_CHECKING:
    from streamlift.integrations.scope.standin import (
        BasePipelineConfig,
        HuggingfaceRepoArtifact,
        ModeDefaults,
        UsageType,
        ui_field_config,
    )
else:
    try:
        from scope.core.pipelines.artifacts import HuggingfaceRepoArtifact
        from scope.core.pipelines.base_schema import (
            BasePipelineConfig,
            ModeDefaults,
            UsageType,
            ui_field_config,
        )
    except ImportError:  # our own tests, where Scope is not installed
        from streamlift.integrations.scope.standin import (
            BasePipelineConfig,
            HuggingfaceRepoArtifact,
            ModeDefaults,
            UsageType,
            ui_field_config,
        )

__all__ = [
    "DEFAULT_STABILISE",
    "FlashVsrConfig",
    "RealEsrganConfig",
    "UpscaleConfig",
]

# Offered where NVIDIA's package is installed only; a choice that cannot work would mislead.
if TYPE_CHECKING or find_spec("nvvfx") is not None:
    Model = Literal["flashvsr", "swiftvr", "realesrgan-x2", "rtx-vsr", "bicubic", "off"]
else:
    Model = Literal["flashvsr", "swiftvr", "realesrgan-x2", "bicubic", "off"]
Strength = Literal["off", "lite", "strong"]

DEFAULT_MODEL: Model = "realesrgan-x2"
DEFAULT_STABILISE: Strength = "off"

_MODEL_HELP = (
    "flashvsr: best, 12 frames behind. swiftvr: a third of its work, 11 behind. "
    "realesrgan-x2, rtx-vsr: per frame. bicubic: no model. "
    "off: frames pass through."
)


class UpscaleConfig(BasePipelineConfig):
    """Scope builds its form from this. It starts without any download; models are used if there."""

    pipeline_id: ClassVar[str] = "streamlift-upscale"
    pipeline_name: ClassVar[str] = "Upscale x2 (streamlift)"
    pipeline_description: ClassVar[str] = (
        "Doubles width and height of live video. The model can be changed while the stream runs; "
        "frames keep an even cadence behind bursty generators. Starts without a download: a "
        "model whose files are missing is told in the picture."
    )
    supports_prompts: ClassVar[bool] = False
    usage: ClassVar[list[UsageType]] = [UsageType.POSTPROCESSOR]
    modes: ClassVar[dict[str, ModeDefaults]] = {"video": ModeDefaults(default=True)}
    # Parameters reach every stage of a chain, so the names must not be anybody else's.
    upscale_model: Model = Field(
        default=DEFAULT_MODEL,
        description=_MODEL_HELP,
        json_schema_extra=ui_field_config(order=1, label="Model", is_load_param=False),
    )
    upscale_stabilise: Strength = Field(
        default=DEFAULT_STABILISE,
        description="Calms flicker of invented detail; needs opencv-python-headless.",
        json_schema_extra=ui_field_config(order=2, label="Stabilise", is_load_param=False),
    )
    device: str | None = Field(
        default=None,
        description="Where the upscaler runs: cuda:1 keeps it off the generator's GPU.",
        json_schema_extra=ui_field_config(order=3, label="Device", is_load_param=True),
    )


class FlashVsrConfig(UpscaleConfig):
    """The same stage with FlashVSR's files: Scope downloads them before it starts."""

    pipeline_id: ClassVar[str] = "streamlift-flashvsr"
    pipeline_name: ClassVar[str] = "Upscale x2 with FlashVSR (streamlift)"
    artifacts: ClassVar[list[HuggingfaceRepoArtifact]] = [
        HuggingfaceRepoArtifact(
            repo_id="JunhaoZhuang/FlashVSR-v1.1",
            files=[
                "diffusion_pytorch_model_streaming_dmd.safetensors",
                "LQ_proj_in.ckpt",
                "TCDecoder.ckpt",
            ],
        ),
        # The text embedding that all users of the model share; not in its own repository.
        HuggingfaceRepoArtifact(repo_id="varb15/posi_prompt", files=["posi_prompt.pth"]),
    ]

    upscale_model: Model = Field(
        default="flashvsr",
        description=_MODEL_HELP,
        json_schema_extra=ui_field_config(order=1, label="Model", is_load_param=False),
    )


class RealEsrganConfig(UpscaleConfig):
    """The same stage with Real-ESRGAN's file: Scope downloads it before it starts."""

    pipeline_id: ClassVar[str] = "streamlift-realesrgan"
    pipeline_name: ClassVar[str] = "Upscale x2 with Real-ESRGAN (streamlift)"
    artifacts: ClassVar[list[HuggingfaceRepoArtifact]] = [
        # A copy: the authors publish elsewhere, and Scope fetches from this hub alone.
        HuggingfaceRepoArtifact(repo_id="dtarnow/UPscaler", files=["RealESRGAN_x2plus.pth"]),
    ]
