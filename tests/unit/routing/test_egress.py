"""The egress proxy's rules: each host and port of the table, a company's proxy, and nothing else."""

from __future__ import annotations

from io3ops.routing.egress import egress

OUTSIDE = (("http", "10.0.0.7", 8000), ("https", "api.openai.com", 443), ("https", "vllm.corp.example", 8443))


def rules(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(word)]


def test_each_host_and_port_gets_its_own_rule() -> None:
    text = egress(OUTSIDE)
    assert rules(text, "acl") == [
        "acl host_1 dstdomain -n 10.0.0.7", "acl port_1 port 8000", "acl host_2 dstdomain -n api.openai.com", "acl port_2 port 443",
        "acl host_3 dstdomain -n vllm.corp.example", "acl port_3 port 8443",
    ]  # fmt: skip
    assert rules(text, "http_access") == [
        "http_access allow plain call host_1 port_1 !inward",
        "http_access allow CONNECT host_2 port_2 !inward",
        "http_access allow CONNECT host_3 port_3 !inward",
    ]
    assert not rules(text, "cache_peer") and not rules(text, "never_direct")


def test_a_companys_proxy_gets_all_calls_except_those_to_direct_hosts() -> None:
    text = egress(OUTSIDE, "http://user:pa%40ss@proxy.corp.example:3128", [".corp.example", "localhost"])
    (peer,) = rules(text, "cache_peer proxy")
    assert peer.startswith("cache_peer proxy.corp.example parent 3128 0 ") and peer.endswith(" login=user:pa%40ss")
    assert rules(text, "acl straight") == [
        "acl straight dstdomain -n 10.0.0.7",
        "acl straight dstdomain -n vllm.corp.example",
    ]
    assert rules(text, "never_direct") == ["never_direct allow !straight"]
    assert "http_access allow CONNECT host_2 port_2\n" in text, "its name cannot be looked up here"
    assert "http_access allow CONNECT host_3 port_3 !inward\n" in text
    assert "cache_peer host.docker.internal parent 8080" in egress(OUTSIDE, "http://localhost:8080")


def test_without_outside_targets_nothing_is_allowed_and_the_shells_proxy_is_ignored() -> None:
    assert egress((), "http://proxy:1") == egress(()) and not rules(egress(()), "http_access")
