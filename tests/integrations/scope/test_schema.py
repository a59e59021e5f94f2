"""The form's fields on pydantic, as under Scope: in its own process, with modules like Scope's."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

# As much of daydreamlive/scope 0.2.4 as the plugin imports.
SCOPE = """
import sys, types
from abc import ABC
from enum import Enum
from typing import Any, ClassVar
from pydantic import BaseModel, ConfigDict

class UsageType(str, Enum):
    POSTPROCESSOR = "postprocessor"

class ModeDefaults(BaseModel):
    model_config = ConfigDict(extra="forbid")
    default: bool = False

class BasePipelineConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    pipeline_id: ClassVar[str] = "base"
    supports_prompts: ClassVar[bool] = True
    artifacts: ClassVar[list[Any]] = []
    usage: ClassVar[list[UsageType]] = []
    modes: ClassVar[dict[str, ModeDefaults]] = {}
    height: int = 512
    width: int = 512
    input_size: int | None = 1

def ui_field_config(*, order=None, component=None, modes=None, is_load_param=False, label=None):
    return {"ui": {"order": order, "is_load_param": is_load_param, "label": label}}

class HuggingfaceRepoArtifact(BaseModel):
    repo_id: str
    files: list[str]

class Requirements(BaseModel):
    input_size: int

class Pipeline(ABC):
    pass

hooked = []
def hookimpl(function):
    hooked.append(function.__name__)
    return function

def module(name, **names):
    made = sys.modules[name] = types.ModuleType(name)
    vars(made).update(names)

for package in ("scope", "scope.core", "scope.core.plugins", "scope.core.pipelines"):
    module(package, __path__=[])
module("scope.core.plugins.hookspecs", hookimpl=hookimpl)
module("scope.core.pipelines.artifacts", HuggingfaceRepoArtifact=HuggingfaceRepoArtifact)
module("scope.core.pipelines.base_schema", BasePipelineConfig=BasePipelineConfig,
       ModeDefaults=ModeDefaults, UsageType=UsageType, ui_field_config=ui_field_config)
module("scope.core.pipelines.interface", Pipeline=Pipeline, Requirements=Requirements)
"""

ASK = """
import json
from streamlift.integrations.scope import plugin
registered = []
plugin.register_pipelines(registered.append)
stage = registered[0]
config = stage.get_config_class()
print(json.dumps({
    "hooked": hooked,
    "is_pipeline": issubclass(stage, Pipeline),
    "schema": config.model_json_schema(),
    "defaults": {k: v for k, v in config().model_dump().items() if v is not None},
    "id": config.pipeline_id,
    "usage": [u.value for u in config.usage],
    "artifacts": {
        c.pipeline_id: [a.repo_id for a in c.artifacts]
        for c in (s.get_config_class() for s in registered)
    },
    "first_models": {
        c.pipeline_id: c().upscale_model for c in (s.get_config_class() for s in registered)
    },
    "requirements": stage(**config(upscale_model="bicubic").model_dump()).prepare().model_dump(),
}))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    output = subprocess.run(
        [sys.executable, "-c", SCOPE + ASK], capture_output=True, text=True, check=True
    ).stdout
    result: dict[str, Any] = json.loads(output)
    return result


def test_the_plugin_uses_scopes_own_classes_when_they_are_there(told: dict[str, Any]) -> None:
    assert told["hooked"] == ["register_pipelines", "register_nodes"]
    assert told["is_pipeline"]
    assert told["requirements"] == {"input_size": 1}


def test_a_choice_becomes_a_select_that_works_while_the_stream_runs(told: dict[str, Any]) -> None:
    model = told["schema"]["properties"]["upscale_model"]
    assert model["enum"] == ["flashvsr", "swiftvr", "realesrgan-x2", "bicubic", "off"]
    assert model["ui"]["is_load_param"] is False
    assert told["schema"]["properties"]["device"]["ui"]["is_load_param"] is True


def test_nvidias_upscaler_is_offered_where_its_package_is() -> None:
    there = "import importlib.machinery, sys, types\nmade = types.ModuleType('nvvfx')\n"
    there += "made.__spec__ = importlib.machinery.ModuleSpec('nvvfx', None)\n"
    there += "sys.modules['nvvfx'] = made\n"
    output = subprocess.run(
        [sys.executable, "-c", there + SCOPE + ASK], capture_output=True, text=True, check=True
    ).stdout
    model = json.loads(output)["schema"]["properties"]["upscale_model"]
    assert model["enum"] == ["flashvsr", "swiftvr", "realesrgan-x2", "rtx-vsr", "bicubic", "off"]


def test_the_defaults_need_no_parameters_at_all(told: dict[str, Any]) -> None:
    assert told["defaults"]["upscale_model"] == "realesrgan-x2"
    assert told["defaults"]["upscale_stabilise"] == "off"


def test_its_names_are_told_to_scope(told: dict[str, Any]) -> None:
    assert told["id"] == "streamlift-upscale"
    assert told["usage"] == ["postprocessor"]


def test_a_stage_waits_for_the_files_of_its_own_model_and_the_general_one_for_none(
    told: dict[str, Any],
) -> None:
    assert told["artifacts"] == {
        "streamlift-upscale": [],
        "streamlift-flashvsr": ["JunhaoZhuang/FlashVSR-v1.1", "varb15/posi_prompt"],
        "streamlift-realesrgan": ["dtarnow/UPscaler"],
    }
    assert told["first_models"] == {
        "streamlift-upscale": "realesrgan-x2",
        "streamlift-flashvsr": "flashvsr",
        "streamlift-realesrgan": "realesrgan-x2",
    }
