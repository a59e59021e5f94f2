"""Which addresses a pull may reach, without any network."""

from __future__ import annotations

import ipaddress

import pytest

from streamlift.errors import ConfigError
from streamlift.media.remote.url_safety import HostRules, Target

OPEN = HostRules(["*.example.com", "example.org", "localhost", "10.1.0.0/16", "fd00::5"])
HERE = Target("https", "example.org", 443)

ACCEPTED = [
    ("https://example.org/whep/a", Target("https", "example.org", 443)),
    ("https://EXAMPLE.org./whep", Target("https", "example.org", 443)),
    ("https://a.b.example.com:8443/x?y=z", Target("https", "a.b.example.com", 8443)),
    ("http://localhost:8000", Target("http", "localhost", 8000)),
    ("http://10.1.2.3/whep", Target("http", "10.1.2.3", 80)),
    ("http://[fd00::5]:8889/whep", Target("http", "fd00::5", 8889)),
    ("http://[::ffff:10.1.2.3]/", Target("http", "::ffff:10.1.2.3", 80)),
]

REFUSED = [
    "",
    "example.org/whep",
    "ftp://example.org/",
    "file:///etc/passwd",
    "gopher://example.org:70/",
    "javascript:alert(1)",
    "https://",
    "https://evil.example/",
    "https://example.com/",  # *.example.com is what lies below it
    "https://evilexample.com/",
    "https://example.org.evil.example/",
    "https://example.org@evil.example/",
    "https://user:secret@example.org/",
    "https://evil.example#@example.org/",
    "https://evil.example\\@example.org/",
    "https://example.org\t.evil.example/",
    "https://exa mple.org/",
    "https://exämple.org/",
    "https://example.org%00.evil.example/",
    "https://example.org:99999/",
    "https://example.org:port/",
    "https://[::1",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://0.0.0.0/",
    "https://[::]/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://10.2.0.1/",
    "https://192.168.0.1/",
    "https://172.16.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://[fd00:ec2::254]/",
    "https://8.8.8.8/",  # an address has to be listed itself
    "https://" + "a" * 3000 + ".example.com/",
]

NOT_PUBLIC = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "10.2.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "168.63.129.16",
    "192.0.0.192",
    "224.0.0.251",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "not an address",
]


@pytest.mark.parametrize(("url", "target"), ACCEPTED)
def test_allowed_hosts_are_found_however_they_are_written(url: str, target: Target) -> None:
    assert OPEN.check(url) == target


@pytest.mark.parametrize("url", REFUSED)
def test_everything_else_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        OPEN.check(url)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_allowed_name_must_not_lead_to_an_address_that_is_not_public(address: str) -> None:
    with pytest.raises(ConfigError):
        OPEN.check_addresses(HERE, [address])


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_an_allowed_name_may_lead_to_a_public_address(address: str) -> None:
    assert OPEN.check_addresses(HERE, [address]) == (ipaddress.ip_address(address),)


@pytest.mark.parametrize("address", ["10.1.0.1", "::ffff:10.1.0.1", "fd00::5"])
def test_an_allowed_name_may_lead_to_a_private_address_that_is_listed(address: str) -> None:
    assert OPEN.check_addresses(HERE, [address])


def test_one_bad_address_among_good_ones_is_enough_to_refuse() -> None:
    with pytest.raises(ConfigError):
        OPEN.check_addresses(HERE, ["8.8.8.8", "127.0.0.1"])


def test_localhost_leads_to_loopback_only_under_its_own_name() -> None:
    assert OPEN.check_addresses(Target("http", "localhost", 80), ["127.0.0.1", "::1"])
    with pytest.raises(ConfigError):
        OPEN.check_addresses(Target("http", "localhost", 80), ["192.168.1.1"])


def test_plain_http_goes_to_listed_addresses_only() -> None:
    with pytest.raises(ConfigError, match="https"):
        OPEN.check_addresses(Target("http", "example.org", 80), ["8.8.8.8"])


def test_nothing_is_allowed_by_default() -> None:
    with pytest.raises(ConfigError, match=r"sources\.allowed_hosts"):
        HostRules([]).check("https://example.org/")


@pytest.mark.parametrize("entry", ["", "*", "https://example.org", "example.org:443", "a b", "*.*"])
def test_an_entry_that_cannot_be_meant_is_an_error(entry: str) -> None:
    with pytest.raises(ConfigError, match="allowed_hosts"):
        HostRules([entry])


def test_a_refusal_does_not_repeat_the_url() -> None:
    with pytest.raises(ConfigError) as caught:
        OPEN.check("https://user:canary@example.org/")
    assert "canary" not in f"{caught.value} {caught.value.found} {caught.value.expected}"
