"""`python -I measure.py`, a job on stdin: times the same request two ways, turn by turn, and prints what each took.

`io3ops bench` runs it in the stack's network, so that both ways begin in one place. The job is one line of JSON; when stdin
ends after it, nobody waits for the answer any more, and the program ends too. Stdout: one JSON object a line, `warm`,
`sample`, `progress` or `done`. May touch: connections to the URLs of its job.
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

# Of the time for measuring; the rest is for many at a time.
SHARE_OF_ONE = 0.6
INTERRUPTED = 130

Job = Mapping[str, Any]


def say(kind: str, **fields: Any) -> None:
    print(json.dumps({"kind": kind, **fields}), flush=True)


def words(found: Mapping[str, Any]) -> bool:
    """Whether a part of a streamed answer holds text, in Ollama's words or OpenAI's; thinking aloud is text too."""
    choices = found.get("choices") or [{}]
    part = found.get("message") or choices[0].get("delta") or {}
    return bool(part.get("content") or part.get("thinking") or part.get("reasoning_content"))


def counted(found: Mapping[str, Any]) -> int:
    """The tokens of an answer: those it made, or for a vector those it read; 0 when it does not say."""
    usage = found.get("usage") or {}
    names = ("eval_count", "prompt_eval_count") if "usage" not in found else ("completion_tokens", "prompt_tokens")
    return next((int(v) for v in ((usage or found).get(n) for n in names) if v), 0)


async def ask(session: aiohttp.ClientSession, way: Mapping[str, Any]) -> dict[str, Any]:
    """One request. `seconds` until its last byte, `first` until its first text (0 when it is not streamed)."""
    said: dict[str, Any] = {"seconds": 0.0, "first": 0.0, "tokens": 0, "served": "", "error": ""}
    data = json.dumps(way["body"]).encode()
    headers = {"Content-Type": "application/json", **way["headers"]}
    started = perf_counter()
    try:
        async with session.post(way["url"], data=data, headers=headers, proxy=way["proxy"] or None) as answer:
            said["served"] = answer.headers.get("x-io3-deployment", "")
            if answer.status != 200:
                text = " ".join((await answer.text()).split())
                return said | {"error": f"HTTP {answer.status}: {text[:300]}"}
            if way["body"].get("stream"):
                async for line in answer.content:
                    _take(said, line, perf_counter() - started)
                said["seconds"] = perf_counter() - started
            else:
                whole = await answer.read()
                said["seconds"] = perf_counter() - started
                _take(said, whole, 0.0)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        return said | {"error": str(error) or type(error).__name__}
    return said if said["tokens"] or said["error"] else said | {"error": "no text came back"}


def _take(said: dict[str, Any], line: bytes, now: float) -> None:
    """What a part of an answer says, or all of it; `now`: seconds since the request, when its beginning counts."""
    line = line.strip().removeprefix(b"data: ")
    if not line or line == b"[DONE]":
        return
    found = json.loads(line)
    if found.get("error"):
        said["error"] = f"the answer broke off: {str(found['error'])[:300]}"
    if now and not said["first"] and words(found):
        said["first"] = now
    said["tokens"] = counted(found) or said["tokens"]


async def burst(
    session: aiohttp.ClientSession, way: Mapping[str, Any], at_once: int, each: int
) -> tuple[float, list[dict[str, Any]]]:
    """`at_once` clients, `each` requests one after the other; the seconds of it all, and the answers."""

    async def client() -> list[dict[str, Any]]:
        return [await ask(session, way) for _ in range(each)]

    started = perf_counter()
    found = await asyncio.gather(*(client() for _ in range(at_once)))
    return perf_counter() - started, [answer for answers in found for answer in answers]


async def warm(session: aiohttp.ClientSession, job: Job) -> list[dict[str, Any]]:
    """The cases with those ways that answered a first request, which also loads the models. A case needs its gateway."""
    ready = []
    for number, case in enumerate(job["cases"]):
        say("progress", text=f"warm-up: {case['mode']}, {case['what']}")
        ways = {}
        for name, way in case["ways"].items():
            answer = await ask(session, way)
            say("warm", case=number, way=name, **answer)
            if not answer["error"]:
                ways[name] = way
        if "gateway" in ways:
            ready.append({**case, "number": number, "ways": ways})
    return ready


async def rounds(
    session: aiohttp.ClientSession, case: Mapping[str, Any], at_once: int, count: int, end: float, expected: float
) -> tuple[int, float]:
    """A case both ways, `count` times, the order turned each time: how many there was time for, and the seconds of the quickest.

    A round that would end after `end` even if it is as quick as that is not begun. `expected`: the seconds of the first, 0
    for one that must be.
    """
    for turn in range(count):
        began = perf_counter()
        if expected and began + expected > end:
            return turn, expected
        say("progress", text=f"{case['mode']}, {case['what']}, {at_once} at a time: round {turn + 1} of {count}")
        names = list(case["ways"])
        for name in names if turn % 2 == 0 else reversed(names):
            seconds, answers = await burst(session, case["ways"][name], at_once, case["each"] if at_once > 1 else 1)
            place = {"case": case["number"], "way": name, "at_once": at_once, "round": turn}
            say("sample", **place, seconds=seconds, answers=answers)
        took = perf_counter() - began
        # Not the mean: one hiccup of the machine must not use up the time of the rounds after it.
        expected = min(expected, took) if turn else took
    return count, expected


async def measure(job: Job) -> None:
    timeout = aiohttp.ClientTimeout(total=job["timeout"])
    # No proxies of an environment; connections stay open, as an application's do, and no limit makes requests wait here.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=300)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:
        ready = await warm(session, job)
        started = perf_counter()
        whole = await all_cases(session, ready, job, started)
        say("done", seconds=perf_counter() - started, cut=not whole)


async def all_cases(session: aiohttp.ClientSession, cases: list[dict[str, Any]], job: Job, started: float) -> bool:
    """One at a time, then many; whether there was time for all of it. What a case does not use is left to the others.

    Case by case, for a model's first request after another model's is slower, whichever way it comes.
    """
    bursts = job["bursts"] if job["parallel"] > 1 else 0
    whole, took = True, [0.0] * len(cases)
    for at_once, count, share in ((1, job["rounds"], SHARE_OF_ONE if bursts else 1.0), (job["parallel"], bursts, 1.0)):
        end = started + share * job["seconds"]
        for n, case in enumerate(cases):
            now = perf_counter()
            until = now + (end - now) / (len(cases) - n)
            done, took[n] = await rounds(session, case, at_once, count, until, took[n]) if count else (0, 0.0)
            # At worst the runtime answers one request after the other.
            took[n] *= job["parallel"] * case["each"]
            whole &= done == count
    return whole


def _end_with_caller() -> None:
    # os.read: a thread that waits in sys.stdin would hold its lock when Python ends.
    while os.read(0, 4096):
        pass
    os._exit(INTERRUPTED)


def main() -> int:
    """Measure what stdin says. Returns 0, or 130 when the caller went away."""
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
