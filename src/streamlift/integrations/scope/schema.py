"""The fields of the post-processor as Scope shows them; all but the device change while it runs."""

from __future__ import annotations

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

__all__ = ["DEFAULT_MODEL", "DEFAULT_STABILISE", "UpscaleConfig"]

Model = Literal["flashvsr", "realesrgan-x2", "bicubic", "off"]
Strength = Literal["off", "lite", "strong"]

DEFAULT_MODEL: Model = "flashvsr"
DEFAULT_STABILISE: Strength = "off"


class UpscaleConfig(BasePipelineConfig):
    """Scope builds its form from this."""

    pipeline_id: ClassVar[str] = "streamlift-upscale"
    pipeline_name: ClassVar[str] = "Upscale x2 (streamlift)"
    pipeline_description: ClassVar[str] = (
        "Doubles width and height of live video with FlashVSR or Real-ESRGAN. The model can be "
        "changed while the stream runs; frames keep an even cadence behind bursty generators."
    )
    supports_prompts: ClassVar[bool] = False
    usage: ClassVar[list[UsageType]] = [UsageType.POSTPROCESSOR]
    modes: ClassVar[dict[str, ModeDefaults]] = {"video": ModeDefaults(default=True)}
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

    # Parameters reach every stage of a chain, so the names must not be anybody else's.
    upscale_model: Model = Field(
        default=DEFAULT_MODEL,
        description=(
            "flashvsr: best, 12 frames behind. realesrgan-x2: per frame. bicubic: no model. "
            "off: frames pass through."
        ),
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
