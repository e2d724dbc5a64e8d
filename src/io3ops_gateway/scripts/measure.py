"""`python -I measure.py` with a job on stdin: time the same request on two ways in turn, and print the results.

`io3ops bench` runs it in the stack's network, so that both ways start in one place. The job is one line of JSON. When stdin ends after it,
the caller has gone, and the program ends too. Stdout: one JSON object a line, of the kind `warm`, `sample`, `progress` or `done`. May
touch: connections to the URLs of its job.
"""

import asyncio
import json
import os
import sys
import threading
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import aiohttp

# Share of the time for requests one at a time; the rest is for concurrent ones.
SHARE_OF_ONE = 0.6
INTERRUPTED = 130

Job = Mapping[str, Any]


def report(kind: str, **fields: Any) -> None:
    """Print one line for the caller."""
    print(json.dumps({"kind": kind, **fields}), flush=True)


def has_text(event: Mapping[str, Any]) -> bool:
    """Whether an event of a stream holds text, in Ollama's format or OpenAI's; reasoning is text too."""
    choices = event.get("choices") or [{}]
    part = event.get("message") or choices[0].get("delta") or {}
    return bool(part.get("content") or part.get("thinking") or part.get("reasoning_content"))


def token_count(payload: Mapping[str, Any]) -> int:
    """Return the generated tokens of a response, or for an embedding the prompt's; 0 when it does not report them."""
    usage = payload.get("usage") or {}
    names = ("eval_count", "prompt_eval_count") if "usage" not in payload else ("completion_tokens", "prompt_tokens")
    return next((int(v) for v in ((usage or payload).get(n) for n in names) if v), 0)


async def ask(session: aiohttp.ClientSession, way: Mapping[str, Any]) -> dict[str, Any]:
    """Send one request. Return `seconds` until its last byte, `first` until its first text (0 when it is not streamed), and more."""
    result: dict[str, Any] = {"seconds": 0.0, "first": 0.0, "tokens": 0, "served": "", "error": ""}
    data = json.dumps(way["body"]).encode()
    headers = {"Content-Type": "application/json", **way["headers"]}
    started = perf_counter()
    try:
        async with session.post(way["url"], data=data, headers=headers, proxy=way["proxy"] or None) as response:
            result["served"] = response.headers.get("x-io3-deployment", "")
            if response.status != 200:
                text = " ".join((await response.text()).split())
                return result | {"error": f"HTTP {response.status}: {text[:300]}"}
            if way["body"].get("stream"):
                async for line in response.content:
                    _take(result, line, perf_counter() - started)
                result["seconds"] = perf_counter() - started
            else:
                whole = await response.read()
                result["seconds"] = perf_counter() - started
                _take(result, whole, 0.0)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        return result | {"error": str(error) or type(error).__name__}
    return result if result["tokens"] or result["error"] else result | {"error": "no text came back"}


def _take(result: dict[str, Any], line: bytes, now: float) -> None:
    """Add an event of a stream, or a whole response, to the result. `now`: seconds since the request; 0 when there is no stream."""
    line = line.strip().removeprefix(b"data: ")
    if not line or line == b"[DONE]":
        return
    event = json.loads(line)
    if event.get("error"):
        result["error"] = f"the response broke off: {str(event['error'])[:300]}"
    if now and not result["first"] and has_text(event):
        result["first"] = now
    result["tokens"] = token_count(event) or result["tokens"]


async def burst(
    session: aiohttp.ClientSession, way: Mapping[str, Any], at_once: int, each: int
) -> tuple[float, list[dict[str, Any]]]:
    """Run `at_once` clients with `each` requests one after the other. Return the seconds for all of them, and the results."""

    async def client() -> list[dict[str, Any]]:
        return [await ask(session, way) for _ in range(each)]

    started = perf_counter()
    results = await asyncio.gather(*(client() for _ in range(at_once)))
    return perf_counter() - started, [result for of_client in results for result in of_client]


async def warm(session: aiohttp.ClientSession, job: Job) -> list[dict[str, Any]]:
    """Send a first request on each way, which also loads the models. Return the cases whose gateway answers, with the ways that do."""
    ready = []
    for number, case in enumerate(job["cases"]):
        report("progress", text=f"warm-up: {case['mode']}, {case['what']}")
        ways = {}
        for name, way in case["ways"].items():
            result = await ask(session, way)
            report("warm", case=number, way=name, **result)
            if not result["error"]:
                ways[name] = way
        if "gateway" in ways:
            ready.append({**case, "number": number, "ways": ways})
    return ready


async def rounds(
    session: aiohttp.ClientSession, case: Mapping[str, Any], at_once: int, count: int, end: float, expected: float
) -> tuple[int, float]:
    """Run a case on both ways up to `count` times, in alternating order. Return the number of rounds, and the quickest's seconds.

    Stop before a round that would exceed `end` even if it were as quick as the quickest. `expected`: the seconds of the first round; 0 when
    it must run in any case.
    """
    for turn in range(count):
        began = perf_counter()
        if expected and began + expected > end:
            return turn, expected
        report("progress", text=f"{case['mode']}, {case['what']}, {at_once} at a time: round {turn + 1} of {count}")
        names = list(case["ways"])
        for name in names if turn % 2 == 0 else reversed(names):
            seconds, results = await burst(session, case["ways"][name], at_once, case["each"] if at_once > 1 else 1)
            place = {"case": case["number"], "way": name, "at_once": at_once, "round": turn}
            report("sample", **place, seconds=seconds, answers=results)
        took = perf_counter() - began
        # Not the mean: one hiccup of the machine must not cost the later rounds their time.
        expected = min(expected, took) if turn else took
    return count, expected


async def measure(job: Job) -> None:
    """Measure all cases of a job, and report."""
    timeout = aiohttp.ClientTimeout(total=job["timeout"])
    # No proxies from the environment. Connections stay open, as an application's do, and no limit makes requests wait here.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=300)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:
        ready = await warm(session, job)
        started = perf_counter()
        whole = await all_cases(session, ready, job, started)
        report("done", seconds=perf_counter() - started, cut=not whole)


async def all_cases(session: aiohttp.ClientSession, cases: list[dict[str, Any]], job: Job, started: float) -> bool:
    """Measure requests one at a time, then concurrent ones. Return whether there was time for all rounds.

    Time that a case does not use is left to the others. Case by case, because a model's first request after another model's is slower on
    either way.
    """
    bursts = job["bursts"] if job["parallel"] > 1 else 0
    whole, took = True, [0.0] * len(cases)
    for at_once, count, share in ((1, job["rounds"], SHARE_OF_ONE if bursts else 1.0), (job["parallel"], bursts, 1.0)):
        end = started + share * job["seconds"]
        for n, case in enumerate(cases):
            now = perf_counter()
            until = now + (end - now) / (len(cases) - n)
            done, took[n] = await rounds(session, case, at_once, count, until, took[n]) if count else (0, 0.0)
            # In the worst case the runtime serves one request after the other.
            took[n] *= job["parallel"] * case["each"]
            whole &= done == count
    return whole


def _end_with_caller() -> None:
    # Not `sys.stdin`: a thread that waits there holds its lock while Python ends.
    while os.read(0, 4096):
        pass
    os._exit(INTERRUPTED)


def main() -> int:
    """Measure the job on stdin. Return 0, or 130 when the caller has gone."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 65536)
        if not part:
            return INTERRUPTED
        line += part
    threading.Thread(target=_end_with_caller, daemon=True).start()
    try:
        asyncio.run(measure(json.loads(line)))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
