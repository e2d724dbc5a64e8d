"""The gateway's door, tried by hand: nothing that a client sends is served unless it is one of the few things the door knows.

Over raw sockets, because HTTP libraries do not send most of this. After every test the gateway must serve as before.
"""

from __future__ import annotations

import gzip
import json
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.clone import PATIENCE, Clone, until
from tests.raw_http import Answer, Connection, chunked, exchange, request

pytestmark = pytest.mark.containers

CHAT = "/v1/chat/completions"
JSON = "Content-Type: application/json"
# In every prompt of this file; the container's log must not hold it.
WORD = f"canary{secrets.token_hex(8)}"
MEGABYTE = 1_000_000
# What the gateway waits for a head, and what a busy machine adds.
HEAD_SECONDS = 15.0
GRACE = 4.0
# Shorter than the gateway's other clocks, of which the next is a minute.
LATE = 40.0


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays_behind(running: Clone) -> Iterator[None]:
    """After all of it: the same process, real answers, and a log without prompts, keys or tracebacks."""
    before = running.docker("inspect", "-f", "{{.RestartCount}} {{.State.StartedAt}}", gateway(running)).stdout
    yield
    assert running.docker("inspect", "-f", "{{.RestartCount}} {{.State.StartedAt}}", gateway(running)).stdout == before
    answer = chat(running)
    assert answer.status == 200 and json.loads(answer.body)["choices"], answer
    done = running.docker("logs", gateway(running))
    log = done.stdout + done.stderr
    assert log and WORD not in log and running.key() not in log and "Bearer" not in log
    assert "Traceback" not in log and "site-packages" not in log


@pytest.fixture(autouse=True)
def _still_serves(running: Clone) -> Iterator[None]:
    yield
    answer = exchange(running.port, request("GET", "/v1/models", bearer(running)))
    assert answer and answer.status == 200 and len(json.loads(answer.body)["data"]) == 4, answer


def gateway(clone: Clone) -> str:
    return clone.container("gateway")


def bearer(clone: Clone, key: str = "") -> str:
    return f"Authorization: Bearer {key or clone.key()}"


def prompt(**more: Any) -> dict[str, Any]:
    return {"model": "executor", "max_tokens": 1, "messages": [{"role": "user", "content": WORD}]} | more


def content(path: str, text: str, tokens: int = 1) -> dict[str, Any]:
    """The fields that carry a text at an endpoint, and limit the answer."""
    field: dict[str, Any] = {"/v1/completions": {"prompt": text}, "/v1/responses": {"input": text}}.get(
        path, {"messages": [{"role": "user", "content": text}]}
    )
    return field | {"max_tokens": tokens, "max_output_tokens": tokens}


def chat(clone: Clone, *headers: str, key: str = "", path: str = CHAT, **more: Any) -> Answer:
    """A chat like a client's."""
    body = json.dumps(prompt(**more)).encode()
    with Connection(clone.port, PATIENCE) as connection:
        connection.send(request("POST", path, bearer(clone, key), JSON, *headers, body=body))
        answer = connection.answer()
    assert answer
    return answer


def post(clone: Clone, body: bytes, *headers: str | bytes, path: str = CHAT) -> Answer:
    answer = exchange(clone.port, request("POST", path, bearer(clone), *(headers or (JSON,)), body=body))
    assert answer, "no answer at all"
    return answer


def hidden(clone: Clone) -> bytes:
    """A whole request whose answer would give it away."""
    return request("POST", CHAT, bearer(clone), JSON, body=json.dumps(prompt(model="hidden")).encode())


# -- keys


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Authorization: Bearer sk-wrong",),
        ("Authorization: Bearer",),
        ("Authorization: Bearer ",),
        ("Authorization: KEY",),
        ("Authorization: Basic KEY",),
        ("Authorization: Bearer KEYx",),
        ("Authorization: Bearer KEY KEY",),
        ("Authorization: Bearer KEY, Bearer KEY",),
        ("Authorization: Bearer KEY", "Authorization: Bearer other"),
        ("Authorization: Bearer KEY", "x-api-key: other"),
        ("Authorization: Bearer KEY", "x-api-key:"),
        ("Authorization: Basic KEY", "x-api-key: KEY"),
        ("Proxy-Authorization: Bearer KEY",),
        ("Cookie: token=KEY",),
        ("x-goog-api-key: KEY",),
        ("Ocp-Apim-Subscription-Key: KEY",),
        ("x-litellm-api-key: Bearer KEY",),
        ("API-Key: KE\tY",),
    ],
)
def test_without_the_key_nothing_is_said(running: Clone, headers: tuple[str, ...]) -> None:
    sent = [header.replace("KEY", running.key()) for header in headers]
    for data in (
        request("GET", "/v1/models", *sent),
        request("POST", CHAT, JSON, *sent, body=json.dumps(prompt()).encode()),
    ):
        answer = exchange(running.port, data)
        assert answer and answer.status == 401, answer
        assert answer.error["code"] == "invalid_api_key" and running.key() not in repr(answer)


@pytest.mark.parametrize("where", ["?key=KEY", "?api_key=KEY", "?api-key=KEY", "?access_token=KEY", "?Authorization=Bearer%20KEY"])  # fmt: skip
def test_a_key_in_the_address_is_none(running: Clone, where: str) -> None:
    answer = exchange(running.port, request("GET", "/v1/models" + where.replace("KEY", running.key())))
    assert answer and answer.status == 401


def test_a_key_in_the_body_is_none(running: Clone) -> None:
    body = json.dumps(prompt(api_key=running.key(), key=running.key())).encode()
    answer = exchange(running.port, request("POST", CHAT, JSON, body=body))
    assert answer and answer.status == 401


def test_the_same_key_in_two_places_is_one(running: Clone) -> None:
    answer = exchange(running.port, request("GET", "/v1/models", bearer(running), f"x-api-key: {running.key()}"))
    assert answer and answer.status == 200


def add_key(clone: Clone, name: str, *options: str) -> str:
    done = clone.io3ops("keys", "add", f"{name}-{secrets.token_hex(3)}", *options, "--json")
    assert done.returncode == 0, done.stderr
    made: str = json.loads(done.stdout)["data"]["key"]
    return made


def listed(clone: Clone, key: str) -> Answer:
    answer = exchange(clone.port, request("GET", "/v1/models", bearer(clone, key)))
    assert answer
    return answer


def test_a_key_works_at_once_and_no_longer_than_it_is_wanted(running: Clone) -> None:
    name = f"guest-{secrets.token_hex(3)}"
    key = json.loads(running.io3ops("keys", "add", name, "--json").stdout)["data"]["key"]
    assert listed(running, key).status == 200
    with Connection(running.port) as kept:
        kept.send(request("GET", "/v1/models", bearer(running, key)))
        first = kept.answer()
        assert first and first.status == 200
        assert running.io3ops("keys", "revoke", name).returncode == 0
        # Also on a connection that was let in before.
        kept.send(request("GET", "/v1/models", bearer(running, key)))
        second = kept.answer()
        assert second and second.status == 401
    until("it is refused", lambda: listed(running, key).status == 401)


def test_a_key_for_one_mode_sees_and_uses_that_one(running: Clone) -> None:
    key = add_key(running, "narrow", "--mode", "executor")
    assert [entry["id"] for entry in json.loads(listed(running, key).body)["data"]] == ["executor"]
    other = exchange(running.port, request("GET", "/v1/models/governance", bearer(running, key)))
    assert other and other.status == 404
    for model in ("governance", "governance:internal", "governance:public"):
        answer = chat(running, key=key, model=model)
        assert answer.status == 403 and answer.error["code"] == "mode_not_allowed"
    assert chat(running, key=key).status == 200
    # The owner's key is not narrowed by it.
    assert chat(running, model="governance").status == 200


def test_a_key_for_internal_prompts_cannot_be_talked_out_of_it(running: Clone) -> None:
    key = add_key(running, "inside", "--data-class", "internal")
    for more, headers in (({}, ("x-io3-data-class: public",)), ({"model": "executor:public"}, ())):
        answer = chat(running, *headers, key=key, **more)
        assert answer.status == 200 and answer.headers["x-io3-data-class"] == "internal", answer
        assert answer.headers["x-io3-data-class-from"] == "key"


def test_a_keys_requests_per_minute(running: Clone) -> None:
    key = add_key(running, "few", "--requests-per-minute", "2")
    assert [chat(running, key=key).status for _ in range(2)] == [200, 200]
    refused = chat(running, key=key)
    assert refused.status == 429 and refused.error["code"] == "limit"
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert chat(running).status == 200, "the limit is the key's own"


def test_a_keys_parallel_requests(running: Clone) -> None:
    """One streams, a second one waits outside; its place is free when it ends, also when its client just leaves."""
    key = add_key(running, "single", "--parallel", "1")
    body = json.dumps(prompt(stream=True, max_tokens=400, ignore_eos=True, messages=[{"role": "user", "content": f"{WORD} Count from 1 to 999."}])).encode()  # fmt: skip
    for _ in range(3):
        with Connection(running.port, PATIENCE) as streaming:
            streaming.send(request("POST", CHAT, bearer(running, key), JSON, body=body))
            until("it streams", streaming.arrived)
            second = chat(running, key=key)
        if second.status == 429:
            break
        # A small model may have said all it had to.
    assert second.status == 429 and "parallel" in second.error["message"]
    until("the place is free again", lambda: chat(running, key=key).status == 200)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses", "/v1/completions"])
def test_a_client_that_leaves_takes_its_place_along(running: Clone, path: str, stream: bool) -> None:
    """Also before the first word: an answer that nobody waits for is not worked on."""
    key = add_key(running, "leaver", "--parallel", "1")
    # Reading this takes seconds, whatever a small model then has to say to it.
    text = f"{WORD} and so on" + " and on" * 1500
    body = json.dumps(prompt(**content(path, text, 2000), stream=stream)).encode()
    ran = False
    for _ in range(20):
        with Connection(running.port) as leaving:
            leaving.send(request("POST", path, bearer(running, key), JSON, body=body))
            # Whichever of the two comes in first has the place; it must once be the one that leaves.
            ran = chat(running, key=key).status == 429
        if ran:
            break
    assert ran
    until("its place is free", lambda: chat(running, key=key).status == 200)


def test_a_refused_request_takes_no_place(running: Clone) -> None:
    """Whatever a request is refused for: the next one of its key is not the second one."""
    key = add_key(running, "careful", "--parallel", "1")
    deep: Any = 1
    for _ in range(300):
        deep = {"a": deep}
    for more, status in (
        ({"response_format": deep}, 400),
        ({"tools": 1}, 400),
        ({"metadata": 1}, 400),
        ({"model": "nobody"}, 404),
    ):
        assert chat(running, key=key, **more).status == status, more
    assert chat(running, key=key).status == 200


# -- size


def memory_peak(clone: Clone) -> int:
    """The most that the gateway's processes held since `forget_peak`, in MB."""
    done = clone.docker("exec", gateway(clone), "sh", "-c", "grep -h VmHWM /proc/[0-9]*/status")
    return sum(int(line.split()[1]) for line in done.stdout.splitlines()) // 1000


def forget_peak(clone: Clone) -> int:
    clone.docker("exec", gateway(clone), "sh", "-c", "for p in /proc/[0-9]*; do echo 5 > $p/clear_refs; done")
    return memory_peak(clone)


def test_a_hundred_megabytes_announced_are_refused_before_they_come(running: Clone) -> None:
    with Connection(running.port) as connection:
        connection.send(request("POST", CHAT, bearer(running), JSON, "Content-Length: 100000000"))
        answer = connection.answer()
        assert answer and answer.status == 413 and answer.error["code"] == "too_large"
        assert connection.closed()


def _blocks(block: bytes, size: int) -> Iterator[bytes]:
    for _ in range(size // len(block)):
        yield block


CHUNK = b"100000\r\n" + b" " * 0x100000 + b"\r\n"


@pytest.mark.parametrize(
    ("what", "with_key", "start", "block", "taken", "status"),
    [
        # Without a length: taken up to the limit, and no further.
        ("a body in chunks", True, b"", CHUNK, 95, 413),
        # Without a key nothing is kept, however much comes.
        ("a body in chunks, no key", False, b"", CHUNK, 200, 401),
        ("a chunk extension without end", True, b"1;", b"x" * MEGABYTE, 20, 431),
        ("a chunk size without end", True, b"", b"0" * MEGABYTE, 20, 431),
        ("trailers without end", True, b"0\r\n", b"X-Trailer: y\r\n" * 70_000, 20, 400),
        ("trailers without end, no key", False, b"0\r\n", b"X-Trailer: y\r\n" * 70_000, 20, 401),
        ("one trailer without end, no key", False, b"0\r\nX-Trailer: ", b"x" * MEGABYTE, 20, 401),
    ],
)
def test_what_has_no_end_is_cut_and_not_kept(
    running: Clone, what: str, with_key: bool, start: bytes, block: bytes, taken: int, status: int
) -> None:
    before = forget_peak(running)
    key = [bearer(running)] if with_key else []
    with Connection(running.port) as connection:
        connection.send(request("POST", CHAT, JSON, *key, "Transfer-Encoding: chunked") + start)
        if not with_key:
            answer = connection.answer()
            assert answer and answer.status == status
            sent = connection.send_all(_blocks(block, 150 * MEGABYTE))
        else:
            sent = connection.send_all(_blocks(block, 150 * MEGABYTE))
            answer = connection.answer()
            # The rest of what was sent may have reset the connection before the answer was read.
            assert answer is None or answer.status == status, answer
    assert sent < taken * MEGABYTE, f"{what}: {sent} bytes were taken"
    assert memory_peak(running) - before < 90


@pytest.mark.parametrize("part", ["{}", "[]", '"ab"', "1.5"])
def test_ten_million_small_parts_are_not_unfolded(running: Clone, part: str) -> None:
    """30 MB of JSON, and a gigabyte in memory: more than the container has."""
    many = ",".join([part] * (28 * MEGABYTE // (len(part) + 1)))
    before = forget_peak(running)
    answer = post(running, b'{"model":"executor","messages":[%b]}' % many.encode())
    assert answer.status == 413 and answer.error["code"] == "too_many_parts"
    assert memory_peak(running) - before < 200


@pytest.mark.parametrize(
    ("what", "head"),
    [
        ("one header of a megabyte", b"X-Big: " + b"x" * MEGABYTE + b"\r\n\r\n"),
        ("a name of a megabyte", b"x" * MEGABYTE + b": y\r\n\r\n"),
        ("ten thousand headers", b"X: y\r\n" * 10_000 + b"\r\n"),
        ("a hundred and one headers", b"X: y\r\n" * 100 + b"\r\n"),
        ("headers without end", b"X: y\r\n" * 100_000),
        ("a header without end", b"X-Big: " + b"x" * (10 * MEGABYTE)),
    ],
)
def test_header_bombs(running: Clone, what: str, head: bytes) -> None:
    with Connection(running.port) as connection:
        connection.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + head)
        answer = connection.answer()
        # What is still on its way when the gateway closes may reset the connection before its answer is read.
        assert answer is None or answer.status == 431, what
        assert connection.closed()


def test_a_hundred_headers_are_taken(running: Clone) -> None:
    answer = exchange(running.port, request("GET", "/health", *["X: y"] * 99))
    assert answer and answer.status == 200


@pytest.mark.parametrize(
    "line",
    [
        b"GET /health?" + b"x" * MEGABYTE + b" HTTP/1.1\r\n",
        b"GET /" + b"x" * (10 * MEGABYTE),
        b"G" * MEGABYTE,
        b"GET " + b" " * MEGABYTE,
        b"GET /health HTTP/1." + b"1" * MEGABYTE,
        b"\r\n" * MEGABYTE,
    ],
)
def test_request_line_bombs(running: Clone, line: bytes) -> None:
    with Connection(running.port) as connection:
        connection.send(line)
        answer = connection.answer()
        assert answer is None or answer.status in (400, 431)
        assert connection.closed()


# -- time


def test_nobody_is_waited_for(running: Clone) -> None:
    """Half a head, nothing at all, and every way in which uvicorn's own clock can be stopped: all cut after the same time."""
    whole = request("GET", "/health")
    refused = request("POST", CHAT, JSON, "Content-Length: 1000000")
    cases: dict[str, tuple[bytes, bytes]] = {
        "nothing": (b"", b""),
        "half a head": (b"GET /health HT", b""),
        "a head that trickles": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n"),
        "a header that trickles": (b"GET /health HTTP/1.1\r\nX: ", b"x"),
        "half of the second head": (whole + b"GET /health HT", b""),
        "an empty line after an answer": (whole, b"\r\n"),
        "the body of a refused request": (refused, b"x"),
        "an upgrade that is not taken": (request("POST", CHAT, "Upgrade: websocket", "Connection: Upgrade", "Content-Length: 9"), b""),
    }  # fmt: skip

    def wait(case: tuple[bytes, bytes]) -> float:
        first, then = case
        started = time.monotonic()
        with Connection(running.port) as connection:
            connection.send(first)
            while (gone := time.monotonic() - started) < HEAD_SECONDS + LATE:
                if connection.closed(0.5) or (then and not connection.send(then)):
                    break
        return gone

    with ThreadPoolExecutor(len(cases)) as pool:
        took = dict(zip(cases, pool.map(wait, cases.values()), strict=True))
    assert not {name: gone for name, gone in took.items() if gone >= HEAD_SECONDS + LATE}, took
    assert took["half a head"] > HEAD_SECONDS - GRACE, "and not at once: a slow line is no attack"


# -- paths and methods


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/chat/completions", "/v1/messages"])
@pytest.mark.parametrize(
    "twist",
    [
        lambda p: f"/{p}",
        lambda p: p.replace("/", "//"),
        lambda p: f"/.{p}",
        lambda p: f"/x/..{p}",
        lambda p: f"/%2e%2e{p}",
        lambda p: p + "/",
        lambda p: p + "//",
        lambda p: p + ".",
        lambda p: p + "/.",
        lambda p: p + "/..",
        lambda p: p + "%20",
        lambda p: p + "%00",
        lambda p: p + "%0a",
        lambda p: p + ";a=b",
        lambda p: p + "%3fx",
        lambda p: p + "#x",
        lambda p: p.replace("/", "%2f"),
        lambda p: "/" + p[1:].replace("/", "%2F"),
        lambda p: p.replace("/", "\\"),
        lambda p: p[:-1] + f"%{ord(p[-1]):02x}",
        lambda p: p.upper(),
        lambda p: p.title(),
        lambda p: f"http://localhost{p}",
        lambda p: f"http://evil.example{p}",
        lambda p: f"https://localhost:4000{p}",
        lambda p: f"ftp://u:p@localhost{p}",
        lambda p: p.encode() + b"\x00",
        lambda p: p.encode() + b"\xc0\xae",
        lambda p: p.replace("m", "ⅿ").encode(),
        lambda p: p.encode() + b"\x7f",
        lambda p: p[1:],
        lambda p: f"localhost:4000{p}",
        lambda _: "*",
        lambda _: "localhost:4000",
        lambda _: "",
        lambda p: f"/openai{p}",
        lambda p: f"/v1{p}/v1",
    ],
)
def test_only_the_exact_path_is_there(running: Clone, path: str, twist: Callable[[str], str | bytes]) -> None:
    method = "GET" if path == "/v1/models" else "POST"
    body = b"" if method == "GET" else json.dumps(prompt()).encode()
    answer = exchange(running.port, request(method, twist(path), bearer(running), JSON, body=body))
    assert answer and answer.status in (400, 404), answer
    assert WORD.encode() not in answer.body


@pytest.mark.parametrize("path", ["/v1/models/x/models/executor", "/v1/models/executor/", "/v1/models//executor", "/v1/models/../models", "/v1/models/", "/models/executor:x"])  # fmt: skip
def test_a_mode_has_one_address(running: Clone, path: str) -> None:
    answer = exchange(running.port, request("GET", path, bearer(running)))
    assert answer and answer.status == 404 and answer.error["code"] in ("model_not_found", "not_found")


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/ui", "/v1/files", "/key/generate", "/config/yaml", "/mcp", "/v1/realtime", "/metrics", "/sso/key/generate", "/shutdown", "/health/services", "/v1/model/info", "/.well-known/x", "/favicon.ico"])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "DELETE"])
def test_nothing_of_litellm_shines_through(running: Clone, path: str, method: str) -> None:
    answer = exchange(running.port, request(method, path, bearer(running)), to=method)
    assert answer and answer.status == 404
    assert method == "HEAD" or answer.error["code"] == "not_found"
    assert not [name for name in answer.headers if "litellm" in name or name in ("server", "x-powered-by")]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "HEAD", "CONNECT", "PROPFIND", "QUERY", "PURGE", "M-SEARCH", "get", "Post", "post", "FOO", "PRI", "POST\x00", "G E T"])  # fmt: skip
@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/health"])
def test_other_methods_do_nothing(running: Clone, method: str, path: str) -> None:
    if path == "/health" and method == "HEAD":
        return
    data = request(method, path, bearer(running), JSON, body=json.dumps(prompt()).encode())
    answer = exchange(running.port, data, to=method)
    assert answer and answer.status in (400, 404)
    assert WORD.encode() not in answer.body


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"])
def test_a_method_cannot_be_overridden(running: Clone, name: str) -> None:
    body = json.dumps(prompt()).encode()
    answer = exchange(running.port, request("GET", f"{CHAT}?_method=POST", bearer(running), JSON, f"{name}: POST", body=body))  # fmt: skip
    assert answer and answer.status == 404
    # And what is a POST stays one.
    answer = exchange(running.port, request("POST", "/v1/models", bearer(running), f"{name}: GET"))
    assert answer and answer.status == 404


@pytest.mark.parametrize("header", ["X-Original-URL: /v1/models", "X-Rewrite-URL: /v1/models", "X-Forwarded-Prefix: /v1", "X-Forwarded-Path: /v1/models"])  # fmt: skip
def test_no_header_moves_a_request_elsewhere(running: Clone, header: str) -> None:
    answer = exchange(running.port, request("GET", "/x", bearer(running), header))
    assert answer and answer.status == 404


# -- framing


BODY = json.dumps({"model": "nobody"}).encode()
LENGTH = f"Content-Length: {len(BODY)}"
PLAIN = "Transfer-Encoding: chunked"
# What stands in the head about the body, the body, and whether the request itself may be taken.
FRAMES: dict[str, tuple[tuple[str | bytes, ...], bytes, bool]] = {
    "length and chunks": ((LENGTH, PLAIN), chunked(BODY), False),
    "chunks and length": ((PLAIN, "Content-Length: 4"), chunked(BODY), False),
    "two lengths": ((LENGTH, "Content-Length: 3"), BODY, False),
    "the same length twice": ((LENGTH, LENGTH), BODY, False),
    "a list of lengths": ((f"{LENGTH}, {len(BODY)}",), BODY, False),
    "a negative length": (("Content-Length: -1",), BODY, False),
    "a signed length": ((f"Content-Length: +{len(BODY)}",), BODY, False),
    "a length in hex": ((f"Content-Length: {len(BODY):#x}",), BODY, False),
    "a length with a fraction": ((f"Content-Length: {len(BODY)}.0",), BODY, False),
    "a length with an underscore": ((f"Content-Length: {len(BODY)}_0",), BODY, False),
    "no length": (("Content-Length:",), BODY, False),
    "a length beyond 64 bits": (("Content-Length: 18446744073709551617",), BODY, False),
    "a length of 2^63": (("Content-Length: 9223372036854775808",), BODY, False),
    "a space before the colon": ((f"Content-Length : {len(BODY)}",), BODY, False),
    "a tab before the colon": ((f"Content-Length\t: {len(BODY)}",), BODY, False),
    "a folded length": (("Content-Length:\r\n " + str(len(BODY)),), BODY, False),
    "a folded header": (("X: a\r\n b", LENGTH), BODY, False),
    "a line without a colon": (("nothing", LENGTH), BODY, False),
    "a bare line feed": ((b"X: a\n" + LENGTH.encode(),), BODY, False),
    "a bare carriage return": ((b"X: a\r" + LENGTH.encode(),), BODY, False),
    "a NUL in a header": ((b"X: a\x00b", LENGTH), BODY, False),
    "chunks, after a space": (("Transfer-Encoding : chunked",), chunked(BODY), False),
    "chunks, after a vertical tab": ((b"Transfer-Encoding: \x0bchunked",), chunked(BODY), False),
    "chunks, quoted": (('Transfer-Encoding: "chunked"',), chunked(BODY), False),
    "chunks, folded": (("Transfer-Encoding:\r\n chunked",), chunked(BODY), False),
    "almost chunks": (("Transfer-Encoding: xchunked",), chunked(BODY), False),
    "chunks, then identity": (("Transfer-Encoding: chunked, identity",), chunked(BODY), False),
    "chunks in two lines": ((PLAIN, PLAIN), chunked(BODY), False),
    "chunks and identity in two lines": ((PLAIN, "Transfer-Encoding: identity"), chunked(BODY), False),
    "gzip, then chunks": (("Transfer-Encoding: gzip, chunked",), chunked(BODY), False),
    "identity and a length": (("Transfer-Encoding: identity", LENGTH), BODY, False),
    "chunks by line feeds": ((PLAIN,), b"%x\n%b\n0\n\n" % (len(BODY), BODY), False),
    "a chunk size with a sign": ((PLAIN,), b"+" + chunked(BODY), False),
    "a chunk size with 0x": ((PLAIN,), b"0x" + chunked(BODY), False),
    "a chunk size below zero": ((PLAIN,), b"-1\r\n" + BODY, False),
    "a chunk size beyond 64 bits": ((PLAIN,), b"f" * 17 + b"\r\n" + BODY, False),
    "a chunk size with a space": ((PLAIN,), b"%x \r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), False),
    "a chunk that is longer than it says": ((PLAIN,), b"%x\r\n%bXX0\r\n\r\n" % (len(BODY), BODY), False),
    "a trailer": ((PLAIN,), b"%x\r\n%b\r\n0\r\nx-io3-data-class: public\r\n\r\n" % (len(BODY), BODY), False),
    "a body without a length": ((), BODY, False),
    "a length": ((LENGTH,), BODY, True),
    "a length with space around it": ((f"Content-Length:  {len(BODY)}  ",), BODY, True),
    "chunks": ((PLAIN,), chunked(BODY), True),
    "CHUNKS": (("Transfer-Encoding: CHUNKED",), chunked(BODY), True),
    "a chunk extension": ((PLAIN,), b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY), True),
    "the word with an underscore": (("Transfer_Encoding: chunked", LENGTH), BODY, True),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_a_body_has_one_length(running: Clone, name: str) -> None:
    """Each is refused or taken as it stands; what follows is never read in two ways."""
    headers, body, fine = FRAMES[name]
    with Connection(running.port) as connection:
        connection.send(request("POST", CHAT, bearer(running), JSON, *headers) + body + hidden(running))
        first = connection.answer()
        if fine:
            assert first and first.status == 404 and first.error["message"].startswith("there is no mode 'nobody'")
            second = connection.answer()
            assert second and second.status == 404 and "'hidden'" in second.error["message"]
            return
        assert first is None or first.status in (400, 413, 415), first
        for answer in [first, *connection.answers()] if first and first.status != 415 else []:
            assert not answer or b"hidden" not in answer.body, "what followed was taken for a request"


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (("POST", CHAT), 401),
        (("GET", "/health"), 200),
        (("GET", "/nothing"), 404),
        (("DELETE", CHAT), 404),
        (("POST", CHAT, "Content-Type: text/plain", "KEY"), 415),
        (("POST", CHAT, "Origin: http://evil.example", "KEY"), 403),
        (("POST", CHAT, JSON, "KEY"), 400),
        (("POST", CHAT, JSON, "Expect: 100-continue", "KEY"), 400),
        (("POST", CHAT, "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMA"), 401),
        (("POST", CHAT, JSON, "Upgrade: h2c", "Connection: Upgrade", "KEY"), 400),
        (("POST", CHAT, "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"), 401),
        (("GET", "/health", "Upgrade: foo/2", "Connection: upgrade"), 200),
        (("HEAD", "/health"), 200),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_request_hidden_in_a_body_is_never_one(
    running: Clone, start: tuple[str, ...], status: int, apart: bool, in_chunks: bool
) -> None:
    """Whatever the first one is answered, and also when its body comes after the answer."""
    method, path, *headers = [part.replace("KEY", bearer(running)) for part in start]
    body = hidden(running)
    length = PLAIN if in_chunks else f"Content-Length: {len(body)}"
    last = request("GET", "/v1/models/last", bearer(running))
    with Connection(running.port) as connection:
        connection.send(request(method, path, *headers, length))
        if apart:
            time.sleep(0.02)
        connection.send((chunked(body) if in_chunks else body) + last)
        first = connection.answer(to=method)
        if first and first.status == 100:
            first = connection.answer(to=method)
        assert first and first.status == status, first
        # The next answer is to what stands behind the body, or there is none.
        second = connection.answer()
        assert second is None or "'last'" in second.error["message"], second


def test_pipelined_requests_are_answered_one_by_one_each_for_its_own_key(running: Clone) -> None:
    with Connection(running.port, PATIENCE) as connection:
        body = json.dumps(prompt()).encode()
        connection.send(
            request("POST", CHAT, bearer(running), JSON, body=body)
            + request("GET", "/v1/models")
            + request("GET", "/v1/models/executor", bearer(running))
        )
        found = [connection.answer() for _ in range(3)]
    assert [answer and answer.status for answer in found] == [200, 401, 200]


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (b"GET /health\r\n\r\n", (400, 505)),
        (b"GET /v1/models\r\n\r\n", (400, 505)),
        (b"GET /health HTTP/1.0\r\n\r\n", (421,)),
        (b"GET /health HTTP/1.1\r\n\r\n", (421,)),
        (b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n", (200,)),
        (b"GET /health HTTP/1.2\r\nHost: localhost\r\n\r\n", (400, 505)),
        (b"GET /health HTTP/2.0\r\nHost: localhost\r\n\r\n", (400, 505)),
        (b"GET /health HTTP/0.9\r\nHost: localhost\r\n\r\n", (400, 505)),
        (b"GET /health HTTP/1.1 \r\nHost: localhost\r\n\r\n", (400,)),
        (b"GET  /health HTTP/1.1\r\nHost: localhost\r\n\r\n", (400, 200)),
        (b" GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", (400,)),
        (b"GET /health http/1.1\r\nHost: localhost\r\n\r\n", (400,)),
        (b"GET /health HTTP/1.1\nHost: localhost\n\n", (400,)),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", (400,)),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500, (400,)),
        (b"\x00" * 100, (400,)),
        (b"SSH-2.0-OpenSSH_9.6\r\n", (400,)),
    ],
)
def test_other_protocols_are_not_spoken(running: Clone, data: bytes, statuses: tuple[int, ...]) -> None:
    answer = exchange(running.port, data + b"\r\n")
    assert answer is None or answer.status in statuses, answer


@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/responses", CHAT, "/health", "/mcp", "/ws"])
@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "h2c", "websocket, h2c", "TLS/1.0"])
def test_nothing_is_upgraded(running: Clone, path: str, upgrade: str) -> None:
    handshake = ("Connection: keep-alive, Upgrade", f"Upgrade: {upgrade}", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
    answer = exchange(running.port, request("GET", path, bearer(running), *handshake))
    assert answer and answer.status == (200 if path == "/health" else 404)


def test_a_client_that_offers_http2_is_served(running: Clone) -> None:
    """Java's own client does so with every request, and a server may ignore it; the body must not get lost on the way."""
    offer = (
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    )
    assert chat(running, *offer).status == 200


# -- names and origins


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:4000", "localhost.", "127.0.0.1.", "", ":4000",
        "127.1", "0.0.0.0", "0", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.2", "169.254.169.254", "::1", "[::]", "[::1", "[::1].evil.example",
        "[::ffff:127.0.0.1]", "[localhost]", "localhost:", "localhost:x", "localhost:4000:evil.example", "localhost:4000@evil.example", "evil.example@localhost",
        "localhost, evil.example", "localhost evil.example", "localhost/evil.example", "evil.example#localhost", "localhost%00", "LOCALHOST.evil.example", "lоcalhost",
    ],
)  # fmt: skip
def test_another_name_is_not_answered(running: Clone, host: str) -> None:
    """A page whose own name was pointed here sends that name; the gateway must not be reachable by it."""
    for target in ("/health", "/v1/models"):
        answer = exchange(running.port, request("GET", target, bearer(running), host=host))
        assert answer and answer.status in (400, 421), answer


@pytest.mark.parametrize("second", ["evil.example", "localhost"])
def test_two_names_are_none(running: Clone, second: str) -> None:
    answer = exchange(running.port, request("GET", "/health", f"Host: {second}"))
    assert answer and answer.status in (400, 421)


@pytest.mark.parametrize("name", ["X-Forwarded-Host", "X-Host", "Forwarded", "X-Original-Host"])
def test_no_other_header_names_the_host(running: Clone, name: str) -> None:
    answer = exchange(running.port, request("GET", "/health", f"{name}: localhost", host="evil.example"))
    assert answer and answer.status == 421
    answer = exchange(running.port, request("GET", "/health", f"{name}: evil.example"))
    assert answer and answer.status == 200


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "127.0.0.1:4000", "localhost:80", "[::1]", "[::1]:4000", "host.docker.internal:4000", "gateway:4000"])  # fmt: skip
def test_the_machines_own_names_are_answered(running: Clone, host: str) -> None:
    answer = exchange(running.port, request("GET", "/health", host=host))
    assert answer and answer.status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:4000", "file://", "chrome-extension://abc", "", "*"])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/health", "/nothing"])
def test_a_web_page_gets_nothing(running: Clone, origin: str, method: str, path: str) -> None:
    """Not even with a key, and not in a preflight: no answer carries what would let a page read it."""
    asks = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization", "Access-Control-Request-Private-Network: true")  # fmt: skip
    body = json.dumps(prompt()).encode() if method == "POST" else b""
    data = request(method, path, bearer(running), JSON, f"Origin: {origin}", *asks, body=body)
    answer = exchange(running.port, data, to=method)
    assert answer and answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert WORD.encode() not in answer.body


@pytest.mark.parametrize("kind", ["text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json, text/plain", "text/json", "application/jsonp", "", "APPLICATION"])  # fmt: skip
def test_what_a_page_may_send_without_asking_is_not_taken(running: Clone, kind: str) -> None:
    """These three kinds need no preflight; a browser that left the Origin out would have to be stopped here."""
    answer = post(running, json.dumps(prompt()).encode(), f"Content-Type: {kind}")
    assert answer.status == 415 and answer.error["code"] == "not_json"
    answer = post(running, json.dumps(prompt()).encode(), JSON, f"Content-Type: {kind}")
    assert answer.status == 415


# -- bodies


def nested(depth: int, around: str = "[]") -> bytes:
    return around[0].encode() * depth + around[1].encode() * depth


def with_value(value: bytes, field: bytes = b"metadata") -> bytes:
    return json.dumps(prompt()).encode()[:-1] + b', "%b": %b}' % (field, value)


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"hello", b"{", b"{}x", b"null", b"true", b"1", b'"text"', b"[]", b"[1]", b"[{}]", b"{'a': 1}", b"{a: 1}", b"{},{}",
        b"model=executor&messages=hello",
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nexecutor\r\n--x--\r\n',
        gzip.compress(json.dumps(prompt()).encode()),
        b"\xef\xbb\xbf" + json.dumps(prompt()).encode(),
        json.dumps(prompt()).encode("utf-16"),
        json.dumps(prompt()).encode() + b"\x00",
        json.dumps(prompt()).encode() + b"//comment",
        json.dumps(prompt()).encode()[:-1] + b",}",
        json.dumps(prompt()).encode()[:-1],
        with_value(b"NaN"), with_value(b"-Infinity"), with_value(b"1e"), with_value(b"01"), with_value(b".5"), with_value(b"0x1"),
        with_value(b'"\xff"'), with_value(b'"\xc3"'), with_value(b'"\xed\xa0\x80"'), with_value(b'"\\ud800"'), with_value(b'"\\udc00\\ud800"'),
        with_value(b'"\\x41"'), with_value(b'"a\nb"'), with_value(b'"\x00"'), with_value(b"1", b"\xff"),
        nested(10_000), nested(1_000_000), with_value(nested(10_000)), with_value(b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(running: Clone, body: bytes) -> None:
    # An empty body needs a length too, or none is sent.
    answer = post(running, body) if body else post(running, b"", JSON, "Content-Length: 0")
    assert answer.status == 400 and answer.error["code"] in ("not_json", "bad_metadata"), answer
    assert answer.headers["connection"] == "close" and WORD.encode() not in answer.body


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x-gzip", "gzip, identity", "aes128gcm"])
def test_an_encoded_body_is_not_unpacked(running: Clone, encoding: str) -> None:
    """A bomb of this kind is a thousand times larger than what the limit sees."""
    answer = post(running, gzip.compress(b" " * MEGABYTE), JSON, f"Content-Encoding: {encoding}")
    assert answer.status == 415 and answer.error["code"] == "encoded"


@pytest.mark.parametrize(
    "value",
    [
        b"9" * 5000,
        b"1e999",
        b"-1e999",
        b"0." + b"0" * 5000 + b"1",
        b"123456789012345678901234567890",
        b"1" + b"0" * 400,
        b"-0",
        b"1E400",
    ],
)
def test_huge_numbers_change_nothing(running: Clone, value: bytes) -> None:
    """Refused as no JSON, or handed on as something: never an answer that breaks off, never seconds of arithmetic."""
    answer = post(running, json.dumps(prompt(model="nobody")).encode()[:-1] + b', "seed": %b}' % value)
    assert answer.status in (400, 404)


@pytest.mark.parametrize(("last", "counts"), [("internal", "internal"), ("public", "public")])
def test_of_two_fields_of_one_name_the_last_counts_everywhere(running: Clone, last: str, counts: str) -> None:
    """The body is read once, and what is handed on is written from that: nobody behind the door can see the other one."""
    first = {"internal": "public", "public": "internal"}[last]
    text = json.dumps(prompt())[1:-1]
    fields = f'"metadata": {{"data_class": "{first}"}}, "metadata": {{"data_class": "{last}"}}'
    answer = post(running, f"{{{text}, {fields}}}".encode())
    assert answer.status == 400 or answer.headers["x-io3-data-class"] == counts, answer
    inside = f'"metadata": {{"data_class": "{first}", "data_class": "{last}"}}'
    answer = post(running, f"{{{text}, {inside}}}".encode())
    assert answer.status == 400 or answer.headers["x-io3-data-class"] == counts, answer


@pytest.mark.parametrize(
    ("headers", "more"),
    [
        (("x-io3-data-class: internal", "x-io3-data-class: public"), {}),
        (("x-io3-data-class: internal, public",), {}),
        (("x-io3-data-class: secret",), {}),
        (("x-io3-data-class:",), {}),
        (("x-io3-data-class: public",), {"metadata": {"data_class": "internal"}}),
        (("x-litellm-tags: internal",), {"metadata": {"data_class": "public"}}),
        ((), {"model": "executor:public", "data_class": "internal"}),
        ((), {"metadata": {"data_class": "public"}, "extra_body": {"metadata": {"data_class": "internal"}}}),
        ((), {"metadata": {"tags": ["public", "internal"]}}),
        ((), {"metadata": {"tags": {"internal": 1}}}),
        ((), {"metadata": {"data_class": ["internal"]}}),
        ((), {"metadata": {"data_class": None}, "tags": [["internal"]]}),
        ((), {"metadata": {"data_class": {"a": "internal"}}}),
        ((), {"metadata": {"data_class": True}}),
        ((), {"metadata": "internal"}),
        ((), {"metadata": ["internal"]}),
        ((), {"extra_body": {"extra_body": {"extra_body": {"extra_body": {"data_class": "internal"}}}}}),
        ((), {"data_class": "internаl"}),
    ],
)  # fmt: skip
def test_a_mark_that_cannot_be_read_for_sure_stops_the_request(running: Clone, headers: tuple[str, ...], more: dict[str, Any]) -> None:  # fmt: skip
    answer = chat(running, *headers, **more)
    assert answer.status == 400 and answer.error["code"] in ("unknown_data_class", "contradictory_data_class", "bad_metadata")  # fmt: skip


def test_a_field_may_be_called_anything(running: Clone) -> None:
    """Names of ignored fields come back in a header: nothing in them may end it, or the answer."""
    names: dict[str, Any] = {
        "a\r\nx-injected: 1": 1,
        "b\x00c": 1,
        "d\x1b[31m": 1,
        "é\u2028": 1,
        "e" * 5000: 1,
        "": 1,
        "x\x7f": 1,
    }
    answer = chat(running, **names)
    assert answer.status == 200 and "x-injected" not in answer.headers
    assert answer.headers["x-io3-ignored"].isascii() and answer.headers["x-io3-ignored"].isprintable()


PROVOCATIONS: list[dict[str, Any]] = [
    {"messages": 1}, {"messages": "text"}, {"messages": [1]}, {"messages": ["text"]}, {"messages": {}}, {"messages": [[]]}, {"messages": None},
    {"messages": [{"role": 1, "content": {"a": 1}}]}, {"messages": [{"role": "user", "content": [1]}]}, {"messages": [{"role": "nobody", "content": WORD}]},
    {"messages": [{"role": "tool", "content": WORD}]}, {"messages": [{"role": "assistant", "tool_calls": [{"function": 1}], "content": WORD}]},
    {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": [1]}, {"type": "text", "text": [1]}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,!", "detail": "high"}}]}]},
    {"tools": True}, {"tools": -1}, {"tools": {"a": 1}}, {"tools": [1]}, {"tools": [{"type": "function", "function": 1}]}, {"functions": 7},
    {"tool_choice": {"a": 1}}, {"max_tokens": "x"}, {"temperature": []}, {"stop": {"a": 1}}, {"stop": [[1]]},
    {"n": "x"}, {"n": -1}, {"stream": "yes"}, {"stream_options": 1, "stream": True}, {"logit_bias": 1}, {"response_format": "x"}, {"thinking": 1},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense", "pattern": "("}}}}, {"seed": "x"},
    {"reasoning_effort": {"a": 1}}, {"modalities": 1}, {"prediction": 1}, {"user": {"a": 1}}, {"top_logprobs": []}, {"guided_json": 1},
    {"model": 1}, {"model": None}, {"model": [["x"]]}, {"model": {"a": 1}}, {"model": "x" * 100_000},
]  # fmt: skip


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/completions", "/v1/responses"])
def test_errors_show_nothing_of_the_machine(running: Clone, path: str) -> None:
    """Whatever goes wrong behind the door: an error in the usual shape, without keys, paths or lines of the program."""

    def provoke(more: dict[str, Any]) -> tuple[dict[str, Any], Answer]:
        return more, chat(running, path=path, **(content(path, WORD) | more))

    with ThreadPoolExecutor(4) as pool:
        for more, answer in pool.map(provoke, PROVOCATIONS):
            for word in (b"Traceback", b"site-packages", b"/opt/", b'File \\"', running.key().encode()):
                assert word not in answer.body, f"{word!r}: {more}"
            if answer.status >= 400:
                error = json.loads(answer.body)["error"]
                assert error["message"], more
