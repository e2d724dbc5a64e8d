"""The gateway against stock LiteLLM, Portkey's gateway, nginx and no gateway at all, in one run.

    .venv/bin/python benchmarks/compare.py [--quick] [--no-ollama] [--json FILE]

First before an upstream that answers at once: what each adds, how much it carries on one core, what it holds. Then, with a
throw-away Ollama, what is left of that when a model does the work. All run at the same time and take requests in turns, so
that whatever else the machine does falls on all. A full run writes the tables into benchmarks/README.md; --quick only
shows that everything works: its figures are not for keeping.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lab import (
    BENCH,
    INSTANT,
    PORTKEY,
    DockerFailed,
    Lab,
    Model,
    NotAvailable,
    docker,
    gateway_image,
    other_image,
    real_ollama,
    rendered,
    routing_table,
    sleep_until_quiet,
    tools,
)

from io3ops.routing.plan import Plan

README = BENCH / "README.md"
BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"
CONNECTIONS = 32
CHUNKS = 100
MESSAGES = [{"role": "user", "content": "Say hello. " * 40}]
CALLS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "chat": ("chat", "/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 64}),
    "stream": ("chat", "/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 64, "stream": True}),
    "embed": ("embed", "/v1/embeddings", {"input": "Say hello. " * 40}),
    "real chat": (
        "chat",
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": "Name three colours."}],
            "max_tokens": 24,
            "temperature": 0,
            "seed": 1,
        },
    ),
    "real embed": ("embed", "/v1/embeddings", {"input": "Say hello. " * 10}),
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of each measurement."""

    chat: int = 1500
    stream: int = 300
    embed: int = 600
    rounds: int = 5
    seconds: int = 5
    real: int = 60


QUICK = Sizes(chat=150, stream=40, embed=60, rounds=2, seconds=2, real=8)


@dataclass(kw_only=True)
class Subject:
    """One row: a server, and by which protocol it reaches the upstream. Servers with two rows run once."""

    label: str
    part: str
    port: int
    route: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    real_port: int = 0
    real_headers: dict[str, str] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)

    def target(self, call: str, real: dict[str, Model]) -> dict[str, Any]:
        """What load.py must know to send one kind of call."""
        task, path, body = CALLS[call]
        to_real = call.startswith("real")
        server = "real" if to_real else "up"
        names = real if to_real else INSTANT
        model = f"{server}-{self.route}-{task}" if self.route else names[task].name
        return {
            "host": "ollama" if to_real and self.part == "upstream" else self.part,
            "port": self.real_port if to_real and self.real_port else self.port,
            "path": path,
            "headers": self.headers | (self.real_headers if to_real else {}),
            "body": {"model": model, **body},
        }


def subjects(key: str) -> list[Subject]:
    bearer = {"Authorization": f"Bearer {key}"}
    portkey = bearer | {"x-portkey-provider": "openai", "x-portkey-custom-host": "http://upstream:8000/v1"}
    elsewhere = {"x-portkey-custom-host": "http://ollama:11434/v1"}
    return [
        Subject(label="no gateway", part="upstream", port=8000, real_port=11434),
        Subject(label="nginx, plain reverse proxy", part="nginx", port=4000, real_port=4001),
        Subject(label="io3ops gateway", part="ours", port=4000, route="openai", headers=bearer),
        Subject(label="io3ops gateway, Ollama's protocol", part="ours", port=4000, route="ollama", headers=bearer),
        Subject(label="io3ops gateway, full path", part="full", port=4000, route="openai", headers=bearer),
        Subject(
            label="io3ops gateway, full path, Ollama's protocol", part="full", port=4000, route="ollama", headers=bearer
        ),
        Subject(label="stock LiteLLM", part="stock", port=4000, route="openai", headers=bearer),
        Subject(label="stock LiteLLM, Ollama's protocol", part="stock", port=4000, route="ollama", headers=bearer),
        Subject(label="Portkey", part="portkey", port=8787, headers=portkey, real_headers=elsewhere),
    ]


NGINX_SERVER = """
  upstream to_{listen} {{ server {server}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen {listen};
    location / {{ proxy_pass http://to_{listen}; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}"""


def nginx_conf(with_ollama: bool) -> str:
    servers = [(4000, "upstream:8000"), *([(4001, "ollama:11434")] if with_ollama else [])]
    folders = "".join(
        f"  {part}_temp_path /tmp/{part};\n" for part in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        "daemon off; worker_processes 1; pid /tmp/nginx.pid; error_log stderr;\nevents { worker_connections 1024; }\nhttp {\n"
        f"  access_log off; keepalive_requests 1000000; client_max_body_size 32m;\n{folders}"
        + "".join(NGINX_SERVER.format(listen=listen, server=server) for listen, server in servers)
        + "\n}\n"
    )


def stock_config(ours: str) -> str:
    """The same model list, and what LiteLLM's own documentation begins with: a master key, and nothing else."""
    config = yaml.safe_load(ours)
    return yaml.safe_dump(
        {"model_list": config["model_list"], "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"}}
    )


def without_lane(ours: str) -> str:
    """Every request through LiteLLM's own app."""
    config = yaml.safe_load(ours)
    config["io3ops_policy"]["edge"]["lane"] = False
    return yaml.safe_dump(config)


def start(lab: Lab, part: str, its_images: dict[str, str]) -> None:
    if part in ("ours", "full"):
        lab.start_ours(part)
    elif part == "stock":
        # Its price list would be a download at each start, and this network leads nowhere: it would wait for that in vain.
        argv = ["-e", f"LITELLM_MASTER_KEY={lab.key}", "-e", "LITELLM_LOCAL_MODEL_COST_MAP=True"]
        argv += ["--entrypoint", "/opt/gateway/bin/litellm"]
        lab.start("stock", lab.gateway, *argv, command=("--config", "/lab/stock.yaml", "--port", "4000"))
    elif part == "nginx":
        argv = ["--entrypoint", "/usr/sbin/nginx"]
        lab.start("nginx", its_images["plain"], *argv, command=("-e", "stderr", "-c", "/lab/nginx.conf"))
    elif part == "portkey":
        # It refuses hosts of private networks, unless they are named here.
        argv = ["-e", "TRUSTED_CUSTOM_HOSTS=upstream,ollama", "-e", "NODE_ENV=production"]
        lab.start("portkey", its_images["portkey"], *argv, command=("--headless",))


def start_all(lab: Lab, rows: list[Subject], its_images: dict[str, str], real: dict[str, Model]) -> list[Subject]:
    """One after the other, each timed; the rows of those that started."""
    ready: dict[str, float | None] = {"upstream": None}
    tried = {"upstream"}
    for row in rows:
        if row.part in tried:
            continue
        tried.add(row.part)
        try:
            with lab.timed_start(row.part, row.target("chat", real)) as timed:
                start(lab, row.part, its_images)
            ready[row.part] = timed["seconds"]
            say(f"{row.label}: ready after {timed['seconds']:.2f} s")
        except NotAvailable as error:
            say(f"{row.label} is left out: {error}")
    kept = [row for row in rows if row.part in ready]
    for row in kept:
        row.found["ready s"] = ready[row.part]
    return kept


def one_at_a_time(lab: Lab, rows: list[Subject], call: str, requests: int, real: dict[str, Model]) -> dict[str, Any]:
    """Times of each row's requests, in turns: {label: [(first, total), ...]}."""
    say(f"{call}: {requests} of each, one at a time")
    targets = {row.label: row.target(call, real) for row in rows}
    warm = 3 if call.startswith("real") else 50
    found = lab.ask_load(do="paired", targets=targets, requests=requests, warm=warm, stream=call == "stream")
    for label, why in found["refused"].items():
        say(f"{label} refuses {call}: {why}")
    times: dict[str, Any] = found["times"]
    return times


def quartiles(values: Iterable[float]) -> dict[str, float]:
    least, middle, most = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low": least, "high": most}


def measure_latency(lab: Lab, rows: list[Subject], sizes: Sizes) -> None:
    for call, requests in (("chat", sizes.chat), ("embed", sizes.embed)):
        times = one_at_a_time(lab, rows, call, requests, {})
        direct = [total for _, total in times[rows[0].label]]
        for row in (row for row in rows if row.label in times):
            mine = [total for _, total in times[row.label]]
            row.found[f"{call} p50 ms"] = 1000 * statistics.median(mine)
            row.found[f"{call} p99 ms"] = 1000 * statistics.quantiles(mine, n=100, method="inclusive")[98]
            row.found[f"{call} added ms"] = quartiles(1000 * (a - b) for a, b in zip(mine, direct, strict=True))
    times = one_at_a_time(lab, rows, "stream", sizes.stream, {})
    direct = times[rows[0].label]
    for row in (row for row in rows if row.label in times):
        pairs = list(zip(times[row.label], direct, strict=True))
        row.found["first token added ms"] = quartiles(1000 * (a[0] - b[0]) for a, b in pairs)
        row.found["chunk added us"] = quartiles(1e6 * (a[1] - b[1]) / CHUNKS for a, b in pairs)


WRK = """wrk.method = "POST"
wrk.body = [==[{body}]==]
{headers}
done = function(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format('\\n{{"requests": %d, "seconds": %.6f, "failed": %d}}\\n', summary.requests, summary.duration / 1e6, failed))
end
"""


def measure_throughput(lab: Lab, rows: list[Subject], sizes: Sizes, plain: str | None) -> None:
    """Requests per second with 32 connections, each server on its one core; and per second of a core that it used."""
    if plain:
        argv = ["--entrypoint", "/usr/bin/sleep"]
        lab.start("wrk", plain, *argv, command=("86400",), cpus=lab.cores.others)
    rates: dict[str, list[tuple[float, float, int]]] = {row.label: [] for row in rows}
    for number in range(sizes.rounds):
        say(f"{CONNECTIONS} at a time: round {number + 1} of {sizes.rounds}")
        for row in rows if number % 2 else reversed(rows):
            before = lab.usage(row.part)["cpu"]
            good, failed, seconds = (wrk if plain else counted)(lab, row, sizes.seconds)
            used = lab.usage(row.part)["cpu"] - before
            rates[row.label].append((good / seconds, good / max(used, 0.01), failed))
            sleep_until_quiet()
    for row in rows:
        rounds = rates[row.label]
        row.found["requests/s"] = spread(rate for rate, _, _ in rounds)
        row.found["requests per core second"] = spread(rate for _, rate, _ in rounds)
        row.found["failed"] = sum(failed for _, _, failed in rounds)


def spread(values: Iterable[float]) -> dict[str, float]:
    found = sorted(values)
    return {"median": statistics.median(found), "low": found[0], "high": found[-1]}


def wrk(lab: Lab, row: Subject, seconds: int) -> tuple[int, int, float]:
    target = row.target("chat", {})
    headers = {"Content-Type": "application/json", **target["headers"]}
    lines = "\n".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items())
    lab.write("load.lua", WRK.format(body=json.dumps(target["body"]), headers=lines))
    url = f"http://{target['host']}:{target['port']}{target['path']}"
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "-s", "/lab/load.lua", url]
    shown = json.loads(docker("exec", f"{lab.name}-wrk", *argv).splitlines()[-1])
    return shown["requests"] - shown["failed"], shown["failed"], shown["seconds"]


def counted(lab: Lab, row: Subject, seconds: int) -> tuple[int, int, float]:
    """Without wrk: our own client, which is itself the limit above some thousand requests a second."""
    target = row.target("chat", {})
    rough = lab.ask_load(do="count", target=target, requests=100, connections=CONNECTIONS)
    requests = max(100, int(seconds * 100 / rough["seconds"]))
    found = lab.ask_load(do="count", target=target, requests=requests, connections=CONNECTIONS)
    return found["good"], found["failed"], found["seconds"]


def measure_memory(lab: Lab, rows: list[Subject]) -> None:
    for row in rows[1:]:
        row.found["memory MB"] = lab.usage(row.part)["bytes"] / 10**6


def measure_real(lab: Lab, rows: list[Subject], sizes: Sizes, real: dict[str, Model]) -> None:
    for call, requests in (("real chat", sizes.real), ("real embed", 2 * sizes.real)):
        times = one_at_a_time(lab, rows, call, requests, real)
        direct = [total for _, total in times[rows[0].label]]
        for row in (row for row in rows if row.label in times):
            mine = [total for _, total in times[row.label]]
            row.found[f"{call} ms"] = 1000 * statistics.median(mine)
            row.found[f"{call} ratio"] = quartiles(a / b for a, b in zip(mine, direct, strict=True))


def starter_models(plan: Plan) -> dict[str, Model]:
    """The models of that stack: one for chat, one for embeddings."""
    found: dict[str, Model] = {}
    for planned in plan.models:
        task = "embeddings" if "embeddings" in planned.model.capabilities else "chat"
        model = Model(name=planned.runtime_name, task=task, context=planned.model.context)
        found.setdefault("embed" if task == "embeddings" else "chat", model)
    return found


# -- what is written


def figure(value: dict[str, float] | float | None, digits: int, *, sign: bool = False, spread_too: bool = True) -> str:
    if value is None:
        return "none"
    form = f"{'+' if sign else ''},.{digits}f"
    if not isinstance(value, dict):
        return format(value, form)
    middle = format(value["median"], form)
    return f"{middle} ({value['low']:,.{digits}f} to {value['high']:,.{digits}f})" if spread_too else middle


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def written(rows: list[Subject], sizes: Sizes, versions: dict[str, str], notes: list[str], cores: str) -> str:
    found = [(row.label, row.found, row is rows[0]) for row in rows]
    parts = [
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}. {cores} Medians; in brackets the middle half of the "
        f"pairs, for requests/s the least and the most of {sizes.rounds} rounds of {sizes.seconds} s. An upstream that answers at once:",
        table(
            [
                "chat",
                "p50 ms",
                "p99 ms",
                "added ms",
                f"requests/s, {CONNECTIONS} at a time",
                "requests per second of a core used",
            ],
            [
                [
                    label,
                    figure(f.get("chat p50 ms"), 2),
                    figure(f.get("chat p99 ms"), 2),
                    "" if direct else figure(f.get("chat added ms"), 2, sign=True),
                    figure(f.get("requests/s"), 0),
                    "" if direct else figure(f.get("requests per core second"), 0, spread_too=False),
                ]
                for label, f, direct in found
            ],
        ),
        table(
            [
                "",
                "to the first token, added ms",
                "each chunk, added µs",
                "embeddings p50 ms",
                "added ms",
                "memory MB",
                "start to first answer s",
            ],
            [
                [
                    label,
                    figure(f.get("first token added ms"), 2, sign=True),
                    figure(f.get("chunk added us"), 1, sign=True),
                    figure(f.get("embed p50 ms"), 2),
                    figure(f.get("embed added ms"), 2, sign=True),
                    figure(f.get("memory MB"), 0),
                    figure(f.get("ready s"), 1),
                ]
                for label, f, direct in found
                if not direct
            ],
        ),
    ]
    if "real embed ms" in rows[0].found:
        parts += [
            f"Ollama with the starter models, {CALLS['real chat'][2]['max_tokens']} tokens, temperature 0:",
            table(
                ["", "chat ms", "times no gateway", "embeddings ms", "times no gateway"],
                [
                    [
                        label,
                        figure(f.get("real chat ms"), 0),
                        "" if direct else figure(f.get("real chat ratio"), 3),
                        figure(f.get("real embed ms"), 1),
                        "" if direct else figure(f.get("real embed ratio"), 3),
                    ]
                    for label, f, direct in found
                ],
            ),
        ]
    return "\n\n".join([*parts, *notes])


def put_into_readme(text: str) -> None:
    whole = README.read_text("utf-8")
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{README} has no {BEGIN} and {END}")
    README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def versions_of(lab: Lab, its_images: dict[str, str]) -> dict[str, str]:
    code = "import importlib.metadata as m; print(m.version('litellm'))"
    none = ["run", "--rm", "--network", "none", "--no-healthcheck", "--entrypoint"]
    found = {"LiteLLM": docker(*none, "/opt/gateway/bin/python", lab.gateway, "-c", code)}
    if "portkey" in its_images:
        found["Portkey"] = PORTKEY
    if "plain" in its_images:
        shown = docker(*none, "/usr/bin/dpkg-query", its_images["plain"], "-W", "-f", "${Version}", "nginx")
        found["nginx"] = shown.partition("-")[0]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="The gateway against others, in one run.")
    parser.add_argument("--quick", action="store_true", help="little of everything; the README is left alone")
    parser.add_argument("--no-ollama", action="store_true", help="only the upstream that answers at once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    given = parser.parse_args()
    sizes = QUICK if given.quick else Sizes()
    its, notes = tools(), []
    its_images: dict[str, str] = {}
    for target, lost in (("plain", "nginx and wrk"), ("portkey", "Portkey")):
        try:
            its_images[target] = other_image(its, target)
        except NotAvailable as error:
            say(f"without {lost}: {error}")
            notes.append(f"Without {lost}: its packages could not be had.")
    with Lab(gateway_image(its)) as lab, contextlib.ExitStack() as stack:
        lab.start_harness()
        real: dict[str, Model] = {}
        if not given.no_ollama:
            say("starting an Ollama with the starter models")
            try:
                real = starter_models(stack.enter_context(real_ollama(lab)))
            except NotAvailable as error:
                say(f"without Ollama: {error}")
                notes.append("Without Ollama: it could not be started.")
        lab.write("ours.yaml", ours := rendered(routing_table(real)))
        lab.write("full.yaml", without_lane(ours))
        lab.write("stock.yaml", stock_config(ours))
        lab.write("nginx.conf", nginx_conf(bool(real)))
        needed = {"nginx": "plain", "portkey": "portkey"}
        rows = [row for row in subjects(lab.key) if needed.get(row.part, "") in ("", *its_images)]
        rows = start_all(lab, rows, its_images, real)
        # First, since it warms everything up: Node compiles what ran some thousand times.
        measure_throughput(lab, rows, sizes, its_images.get("plain"))
        measure_latency(lab, rows, sizes)
        measure_memory(lab, rows)
        if real:
            try:
                measure_real(lab, rows, sizes, real)
            except DockerFailed as error:
                # Minutes of figures are there already.
                say(f"without Ollama: {error}")
                notes.append("Ollama's part broke off.")
        versions = versions_of(lab, its_images)
    cores = "Each server on one core, load and upstream on the rest." if lab.cores.tested != "0" else "All on one core."
    failed = {row.label: row.found["failed"] for row in rows if row.found["failed"]}
    notes += [f"Requests that failed at {CONNECTIONS} at a time: {failed}."] if failed else []
    text = written(rows, sizes, versions, notes, cores)
    print(text)
    if given.json:
        figures = {"versions": versions, "sizes": vars(sizes), "rows": {row.label: row.found for row in rows}}
        given.json.write_text(json.dumps(figures | {"notes": notes}, indent=1) + "\n", "utf-8")
    if not given.quick:
        put_into_readme(text)


if __name__ == "__main__":
    main()
