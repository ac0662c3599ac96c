"""Which URLs a webhook can go to, and which addresses may be connected to."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from livejobs.errors import SettingsError
from livejobs.settings import Settings, configure, reset
from livejobs.webhook_settings import new_secret
from livejobs.webhook_urls import Target, check, may_reach, parse


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com", ("https", "example.com", 443, "/")),
        ("http://example.com/a/b?c=d&e=%20", ("http", "example.com", 80, "/a/b?c=d&e=%20")),
        ("https://example.com?x=1", ("https", "example.com", 443, "/?x=1")),
        ("https://example.com:8443/", ("https", "example.com", 8443, "/")),
        ("https://[2606:4700::1111]:443/", ("https", "2606:4700::1111", 443, "/")),
        ("https://xn--bcher-kva.example/", ("https", "xn--bcher-kva.example", 443, "/")),
    ],
)
def test_parse_takes_a_url_apart(url: str, target: tuple[str, str, int, str]) -> None:
    assert parse(url) == Target(*target)


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.com", "ftp://example.com/", "file:///etc/passwd", "//example.com/"),
        *("https://", "https:///x", "HTTPS://example.com/", "https://user:pass@example.com/"),
        *("https://example.com@127.0.0.1/", "https://example.com\\@127.0.0.1/"),
        *("https://bücher.example/", "https://example.com/\n", "https://exa mple.com/"),
        *("https://example.com/#part", "https://example.com/ü", "https://example.com:0/"),
        *("https://example.com:25/", "https://example.com:99999/", "https://example.com:x/"),
        *("https://[::1%25eth0]/", f"https://example.com/{'x' * 2000}", "gopher://example.com/"),
    ],
)
def test_parse_refuses_what_is_no_plain_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"it is no URL|its port"):
        parse(url)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "LOCALHOST.", "app.localhost", "0.0.0.0", "10.1.2.3"),
        *("172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1"),
        *("255.255.255.255", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "192.0.0.8"),
        *("[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[ff0e::1]", "[::ffff:127.0.0.1]"),
        *("[::ffff:a00:1]", "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::1]"),
        *("[2002:7f00:1::]", "[2001:0:1::1]", "[::127.0.0.1]", "[fec0::1]", "[2001:db8::1]"),
    ],
)
def test_check_refuses_what_is_written_as_a_private_address(host: str) -> None:
    with pytest.raises(ValueError, match="private network"):
        check(f"https://{host}/", ())


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"]
)
def test_public_addresses_may_be_reached(address: str) -> None:
    assert may_reach(ip_address(address), ())


def test_networks_that_are_named_may_be_reached() -> None:
    networks = (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    assert may_reach(ip_address("10.1.2.3"), networks)
    assert may_reach(ip_address("::ffff:10.1.2.3"), networks)
    assert may_reach(ip_address("fd00::1"), networks)
    assert not may_reach(ip_address("10.2.0.1"), networks)
    assert not may_reach(ip_address("127.0.0.1"), networks)


def test_secrets_are_as_standard_webhooks_wants_them_and_stay_secret() -> None:
    made = new_secret()
    settings = Settings(webhook_secret=f"{made}, whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
    assert settings.webhook_secret[0].get_secret_value() == made
    assert made not in repr(settings)
    try:
        for wrong in ("secret", "whsec_", "whsec_c2hvcnQ=", made[6:], "whsec_=%$", made * 3):
            with pytest.raises(SettingsError, match="webhook_secret: each is whsec_") as raised:
                configure(webhook_secret=wrong)
            if len(wrong) > len("whsec_"):
                assert wrong[6:] not in str(raised.value)
    finally:
        reset()
