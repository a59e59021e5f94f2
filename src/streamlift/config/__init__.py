"""The configuration: one frozen typed tree, read once. `configs/*.yaml` are commented examples."""

from streamlift.config.checks import NAME_PATTERN, POLICIES, PREFIX_PATTERN, check_name
from streamlift.config.reading import load_config
from streamlift.config.tree import (
    DEFAULT_BACKEND,
    DEFAULT_BACKENDS,
    AuthConfig,
    BackendConfig,
    ClusterConfig,
    Config,
    EncodeConfig,
    IceConfig,
    IceServer,
    IngestConfig,
    LimitsConfig,
    OutputsConfig,
    PushConfig,
    ServerConfig,
    SourcesConfig,
    TokenConfig,
    WorkerConfig,
)

__all__ = [
    "DEFAULT_BACKEND",
    "DEFAULT_BACKENDS",
    "NAME_PATTERN",
    "POLICIES",
    "PREFIX_PATTERN",
    "AuthConfig",
    "BackendConfig",
    "ClusterConfig",
    "Config",
    "EncodeConfig",
    "IceConfig",
    "IceServer",
    "IngestConfig",
    "LimitsConfig",
    "OutputsConfig",
    "PushConfig",
    "ServerConfig",
    "SourcesConfig",
    "TokenConfig",
    "WorkerConfig",
    "check_name",
    "load_config",
]
