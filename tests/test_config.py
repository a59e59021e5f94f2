"""One tree from file, environment and command line; every mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlift.config import AuthConfig, Config, TokenConfig, check_name, load_config
from streamlift.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def test_nothing_given_means_the_defaults() -> None:
    assert load_config(None, {}) == Config()


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_config(_file(tmp_path, "# nothing\n"), {}) == Config()


def test_the_command_line_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    path = _file(tmp_path, "server: {port: 1, host: 127.0.0.2}\n")
    environ = {"STREAMLIFT_SERVER__PORT": "2"}
    assert load_config(path, {}).server.port == 1
    assert load_config(path, environ).server.port == 2
    config = load_config(path, environ, {"server.port": 3})
    assert (config.server.port, config.server.host) == (3, "127.0.0.2")


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    text = """
server: {host: 0.0.0.0, allowed_origins: [https://a.example]}
auth: {publish: secret, view: [one, two], control: [three]}
ice: {servers: [{urls: "turn:t.example", username: u, credential: c}], announce: [192.0.2.1]}
default_backend: fast
backends:
  - {name: fast, upscaler: toy, slots: 2, settings: {delay_ms: 5}}
"""
    config = load_config(_file(tmp_path, text), {})
    assert config.auth.publish == ("secret",)
    assert config.auth.view == ("one", "two")
    assert config.auth.complete
    assert config.ice.servers[0].username == "u"
    (backend,) = config.named_backends
    assert (backend.name, backend.slots, dict(backend.settings)) == ("fast", 2, {"delay_ms": 5})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("sever: {}", "sever"),
        ("server: {prot: 1}", r"server\.prot"),
        ("backends: [{name: a, upscaler: toy, slot: 1}]", r"backends\[0\]\.slot"),
        ("server: {port: '80'}", r"server\.port.*'80'.*a whole number"),
        ("server: {port: true}", r"server\.port.*True"),
        ("server: {port: 70000}", r"server\.port.*65535"),
        ("server: {port: -1}", r"server\.port"),
        ("server: 5", "server must be a mapping"),
        ("server: {tls_cert: a.pem}", "tls_cert and server.tls_key"),
        ("ingest: {takeover: 1}", r"ingest\.takeover"),
        ("ingest: {max_size: 4096}", r"ingest\.max_size.*1280"),
        ("encode: {codec: av1}", r"encode\.codec.*h264 \| vp8"),
        ("encode: {bitrate_bps: 5}", r"encode\.bitrate_bps"),
        ("encode: {profile: Main}", r"encode\.profile"),
        ("auth: {publish: [1]}", r"auth\.publish\[0\]"),
        ("auth: {publish: {a: b}}", r"auth\.publish.*a list"),
        ("backends: [{upscaler: toy}]", r"backends\[0\] lacks name"),
        ("backends: [{name: 'a b', upscaler: toy}]", "'a b'"),
        ("backends: [{name: a, upscaler: toy}, {name: a, upscaler: toy}]", "same name"),
        ("default_backend: none", "'none'"),
        ("backends: [{name: bicubic, upscaler: toy, settings: [1]}]", "a mapping"),
        ("- a\n- b", "mapping at the top"),
        ("server: {port: 1", "not valid YAML"),
    ],
)
def test_every_mistake_in_a_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(_file(tmp_path, text), {})


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("STREAMLIFT_SERVER__PROT", "1", r"server\.prot"),
        ("STREAMLIFT_SEVER__PORT", "1", "sever"),
        ("STREAMLIFT_SERVER__PORT", "[", "STREAMLIFT_SERVER__PORT"),
        ("STREAMLIFT_SERVER__PORT__DEEP", "1", "port"),
        ("STREAMLIFT_SERVER", "5", "server must be a mapping"),
    ],
)
def test_every_mistake_in_the_environment_is_named(key: str, value: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(None, {key: value})


def test_other_variables_are_none_of_our_business() -> None:
    environ = {
        "STREAMLIFT_REQUIRE": "peer",
        "STREAMLIFT_TOKEN": "t",
        "HOME": "/",
        "SERVER__PORT": "1",
    }
    assert load_config(None, environ) == Config()


def test_environment_values_are_read_as_yaml() -> None:
    environ = {
        "STREAMLIFT_INGEST__TAKEOVER": "false",
        "STREAMLIFT_AUTH__VIEW": "[a, b]",
        "STREAMLIFT_DEFAULT_BACKEND": "bicubic",
    }
    config = load_config(None, environ)
    assert config.ingest.takeover is False
    assert config.auth.view == ("a", "b")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"/no/such\.yaml"):
        load_config(Path("/no/such.yaml"), {})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_example_configuration_loads(path: Path) -> None:
    environ = {f"STREAMLIFT_AUTH__{door}": "token" for door in ("PUBLISH", "VIEW", "CONTROL")}
    environ["STREAMLIFT_CLUSTER__TOKEN"] = "0123456789abcdef"
    assert load_config(path, environ).backends


@given(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
def test_legal_names_are_returned(name: str) -> None:
    assert check_name("stream", name) == name


@pytest.mark.parametrize("name", ["", "a b", "ä", "a/b", "..", "a" * 65, "a\n"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="stream name"):
        check_name("stream", name)


def _file(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("STREAMLIFT_AUTH__PUBLISH", "12345678"),
        ("STREAMLIFT_AUTH__PUBLISH", "[12345678]"),
        ("STREAMLIFT_AUTH__VIEW", "@12345678"),
        ("STREAMLIFT_AUTH", "12345678"),
        ("STREAMLIFT_SOURCES__DAYDREAM_KEY", "12345678"),
        ("STREAMLIFT_ICE__TURN_SECRET", "[12345678]"),
        ("STREAMLIFT_OUTPUTS__PUSH", "[{stream: a, url: b, token: 12345678}]"),
        ("STREAMLIFT_ICE__SERVERS", "[{urls: 'turn:a', credential: 12345678}]"),
    ],
)
def test_no_message_repeats_a_secret(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(None, {key: value})
    shown = (str(raised.value), str(raised.value.found), str(raised.value.__cause__))
    assert not [text for text in shown if "12345678" in text]


def test_a_file_that_is_no_yaml_is_told_by_the_place_not_the_text(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text("server: {port: 1}\nauth:\n  publish: [secret\n")
    with pytest.raises(ConfigError, match="line 4") as raised:
        load_config(path, {})
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("written", "understood"), [("off", "off"), ('"off"', "off"), ("lite", "lite")]
)
def test_a_backend_says_how_much_it_stabilises(
    tmp_path: Path, written: str, understood: str
) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(f"backends: [{{name: compact, upscaler: compact, stabilise: {written}}}]")
    assert load_config(path, {}).named_backends[0].stabilise == understood


@pytest.mark.parametrize("level", ["on", "much", "1", "[lite]"])
def test_another_strength_than_the_three_is_named(tmp_path: Path, level: str) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(f"backends: [{{name: compact, upscaler: compact, stabilise: {level}}}]")
    with pytest.raises(ConfigError, match=r"backends\[0\].stabilise: found .* off \| lite"):
        load_config(path, {})


@pytest.mark.parametrize("scale", ["0.5", "4.5", ".nan", "-2"])
def test_a_scale_of_what_comes_out_is_from_1_to_4(tmp_path: Path, scale: str) -> None:
    path = tmp_path / "service.yaml"
    text = "backends: [{name: compact, upscaler: compact, scale: %s}]"
    path.write_text(text % "3")
    assert load_config(path, {}).named_backends[0].scale == 3.0
    path.write_text(text % scale)
    with pytest.raises(ConfigError, match=r"backends\.compact\.scale: found .* expected 1 to 4"):
        load_config(path, {})


def test_stabilise_among_the_settings_is_told_where_it_belongs(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text("backends: [{name: compact, upscaler: compact, settings: {stabilise: lite}}]\n")
    with pytest.raises(ConfigError, match=r"is now backends\.compact\.stabilise"):
        load_config(path, {})


def test_a_token_may_be_for_some_streams(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text("auth: {view: [all, {token: some, streams: [a, b]}]}")
    assert load_config(path, {}).auth.view == ("all", TokenConfig("some", ("a", "b")))


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("auth: {view: [{token: hidden, streams: []}]}", "no stream at all"),
        ("auth: {view: [{token: hidden, streams: ['a b']}]}", "'a b' is not allowed"),
        ("auth: {view: [{streams: [a]}]}", "lacks token"),
        ("auth: {view: [{token: hidden, stream: a}]}", "stream"),
        ("auth: {view: ['']}", "empty"),
        ("auth: {view: [7]}", "view"),
        ("auth: {link_secret: hidden}", "too short"),
    ],
)
def test_tokens_that_cannot_be_meant_are_refused_and_not_repeated(
    tmp_path: Path, written: str, says: str
) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(written)
    with pytest.raises(ConfigError, match=says) as refused:
        load_config(path, {})
    assert "hidden" not in f"{refused.value} {refused.value.found} {refused.value.expected}"


def test_no_token_is_shown_with_the_configuration() -> None:
    auth = AuthConfig(("hidden",), (TokenConfig("hidden"),), link_secret="hidden" * 8)
    assert "hidden" not in repr(Config(auth=auth))


@pytest.mark.parametrize("written", ["0", "-1", "1e9", "many"])
def test_limits_are_positive_numbers(tmp_path: Path, written: str) -> None:
    path = tmp_path / "service.yaml"
    for name in ("connections", "head_s"):
        path.write_text(f"limits: {{{name}: {written}}}")
        with pytest.raises(ConfigError, match=f"limits.{name}"):
            load_config(path, {})


def test_seconds_may_be_whole(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text("limits: {head_s: 3, body_s: 0x4}")
    assert load_config(path, {}).limits.head_s == 3.0


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("root_path: lift", "server.root_path"),
        ("root_path: /lift/", "server.root_path"),
        ("trusted_proxies: [proxy.example]", "server.trusted_proxies"),
    ],
)
def test_a_proxy_is_named_by_address_and_a_root_path_is_a_path(
    tmp_path: Path, written: str, says: str
) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(f"server: {{{written}}}")
    with pytest.raises(ConfigError, match=says):
        load_config(path, {})
