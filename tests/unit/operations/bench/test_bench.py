"""`io3ops bench`: its requests, its statistics, its output and its options."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

import io3ops.cli.command
import io3ops.cli.main
from io3ops import console
from io3ops.adapters.process import Finished
from io3ops.console import Console, Mode
from io3ops.errors import CheckFailed, ContainerDied, GatewayError, SettingInvalid
from io3ops.operations.bench import bench
from io3ops.operations.bench import text as bench_text
from io3ops.operations.bench.numbers import (
    Answer,
    Difference,
    Report,
    Row,
    Sample,
    Spread,
    Way,
    What,
    difference,
    report,
    spread,
)
from io3ops.operations.bench.requests import PROMPT, Case, Options, cases, choose, job
from io3ops.operations.stack import images
from io3ops.operations.stack import project as stack
from io3ops.routing.load import parse_table
from io3ops.routing.plan import Plan, make_plan
from io3ops.settings import read_settings

TABLE = """
version: 1
providers:
  inside: {kind: ollama}
  host: {kind: ollama, url: "http://localhost:11434"}
  served: {kind: openai_compatible, url: "http://10.0.0.5:8000/v1", locality: local}
  locked: {kind: openai_compatible, url: "http://10.0.0.6:8000/v1", locality: local, key: locked}
  cloud: {kind: openai, key: openai, enabled: true}
models:
  main: {provider: inside, source: {ollama: "main:1b"}, context: 2048, keep_alive: 30m, parameters: {top_p: 0.5, temperature: 1}}
  vec: {provider: inside, source: {ollama: vec}, capabilities: [embeddings], context: 512}
  spare: {provider: host, source: {external: spare}}
  big: {provider: served, source: {external: org/big}}
  mine: {provider: locked, source: {external: mine}}
  gpt: {provider: cloud, source: {external: gpt-4o-mini}}
modes:
  away: {chain: [gpt], data_class: public}
  executor: {chain: [main, gpt], data_class: public, aliases: [fast], system_prompt: "Be brief.", forced: {max_tokens: 8}}
  second: {chain: [main]}
  embed: {chain: [vec]}
  outside: {chain: [spare]}
  server: {chain: [big]}
  keyed: {chain: [mine]}
"""
KEY = "sk-" + "a" * 48


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(parse_table(TABLE.encode(), "t"))


def of(plan: Plan, mode: str) -> tuple[Case, ...]:
    return cases(plan, choose(plan, [mode])[0][0], KEY)


WAYS: tuple[Way, ...] = ("direct", "gateway")


def ways(direct: list[float], gateway: list[float], *, what: What = "chat", at_once: int = 1) -> list[Sample]:
    """Rounds of one request each, in ms."""
    return [
        Sample(
            mode="executor",
            what=what,
            at_once=at_once,
            round=n,
            way=way,
            seconds=ms / 1000,
            answers=(Answer(seconds=ms / 1000, first=ms / 4000, tokens=32, served="", error=""),),
        )
        for way, values in zip(WAYS, (direct, gateway), strict=True)
        for n, ms in enumerate(values)
    ]


def found(samples: list[Sample], *notes: str) -> Report:
    return report(samples, notes, 1.0, cut=False)


# -- requests


def test_by_default_the_first_local_mode_of_each_task_is_measured(plan: Plan) -> None:
    chosen, notes = choose(plan, [])
    assert [d.name for d in chosen] == ["executor.1.main", "embed.1.vec"]
    assert notes == ("not called, because only a cloud serves it: away",)


def test_modes_can_be_chosen_by_name_and_alias_and_each_is_measured_once(plan: Plan) -> None:
    assert [d.mode for d in choose(plan, ["second", "fast", "executor"])[0]] == ["second", "executor"]
    with pytest.raises(SettingInvalid, match="did you mean"):
        choose(plan, ["executer"])


def test_a_cloud_mode_is_never_called_even_when_named(plan: Plan) -> None:
    assert choose(plan, ["second", "away"])[1] == ("not called, because only a cloud serves it: away",)
    with pytest.raises(CheckFailed) as caught:
        choose(plan, ["away"])
    assert "only a cloud" in caught.value.details


def test_no_request_can_reach_a_cloud(plan: Plan) -> None:
    for mode in ("executor", "second", "embed", "outside", "server"):
        for case in of(plan, mode):
            assert case.gateway["headers"]["x-io3-data-class"] == "internal"
            assert case.direct and not case.direct["url"].startswith("https://")


def test_the_direct_request_equals_the_one_that_the_gateway_sends(plan: Plan) -> None:
    """It contains the table's window, keep-alive, system prompt and forced parameters, which the gateway adds by itself."""
    chat, stream = of(plan, "executor")
    assert chat.direct == {
        "url": "http://runtime:11434/api/chat",
        "body": {
            "model": "main:1b",
            "keep_alive": "30m",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}],
            "stream": False,
            "truncate": False,
            "shift": False,
            "options": {"top_p": 0.5, "temperature": 0, "seed": 7, "num_predict": 8, "num_ctx": 2048},
        },
        "headers": {},
        "proxy": "",
    }
    assert stream.direct and stream.direct["body"]["stream"] is True
    assert chat.gateway["url"] == "http://gateway:4000/v1/chat/completions"
    assert chat.gateway["body"]["messages"] == [{"role": "user", "content": PROMPT}]
    assert stream.gateway["body"]["stream_options"] == {"include_usage": True}


def test_embeddings_are_requested_on_both_paths(plan: Plan) -> None:
    (case,) = of(plan, "embed")
    assert case.direct and case.direct["url"].endswith("/api/embed") and case.direct["body"]["input"] == [PROMPT]
    assert case.direct["body"]["options"] == {"num_ctx": 512}
    assert case.gateway["body"] == {"model": "embed", "input": PROMPT}


def test_a_server_outside_the_stack_is_called_through_the_egress_proxy(plan: Plan) -> None:
    (ollama, _), (served, _) = of(plan, "outside"), of(plan, "server")
    assert ollama.direct and served.direct
    assert ollama.direct["url"] == "http://host.docker.internal:11434/api/chat"
    assert served.direct["url"] == "http://10.0.0.5:8000/v1/chat/completions"
    assert served.direct["body"]["model"] == "org/big"
    assert ollama.direct["proxy"] == served.direct["proxy"] == "http://egress:3128"


def test_a_server_with_an_api_key_is_measured_through_the_gateway_only(plan: Plan) -> None:
    chat, stream = of(plan, "keyed")
    assert chat.direct is None and "needs an API key, which only the gateway has" in chat.why
    asked = job([chat], Options(modes=(), rounds=1, parallel=1, seconds=1), 5)
    assert list(asked["cases"][0]["ways"]) == ["gateway"]
    notes = bench.one_way([chat, stream], [])
    assert notes == [f"keyed, {w}: measured through the gateway only: {chat.why}" for w in ("chat", "stream")]


def test_only_the_gateway_gets_the_owners_key(plan: Plan) -> None:
    for mode in ("executor", "outside", "embed"):
        for case in of(plan, mode):
            assert KEY in str(case.gateway) and KEY not in str(case.direct)
            assert case.gateway["headers"]["x-io3-probe"], "a probe does not use up the mode's rate limits"


@pytest.mark.parametrize(("rounds", "bursts"), [(1, 1), (5, 5), (6, 6), (20, 6), (100, 25)])
def test_bursts_are_fewer_than_rounds_but_at_least_six(rounds: int, bursts: int) -> None:
    assert Options(modes=(), rounds=rounds, parallel=4, seconds=60).bursts == bursts


# -- statistics


def test_a_spread_is_the_median_and_the_middle_half() -> None:
    assert spread([1, 2, 3, 4, 100]) == Spread(median=3, low=2, high=4, count=5)
    assert spread([7]) == Spread(median=7, low=7, high=7, count=1)


@pytest.mark.parametrize(("pairs", "low", "high"), [(5, None, None), (6, 0, 5), (9, 1, 7), (20, 5, 14)])
def test_the_range_of_a_difference_comes_from_order_statistics(pairs: int, low: float, high: float) -> None:
    """The ranks of the 95 % interval of a median, from published tables."""
    assert difference((0, n) for n in range(pairs)) == Difference(
        median=(pairs - 1) / 2, low=low, high=high, pairs=pairs
    )


def test_the_range_contains_the_true_value_as_often_as_promised() -> None:
    chance = random.Random(1)
    hit = 0
    for _ in range(400):
        one = difference((0, 5 + chance.lognormvariate(0, 1) - 1) for _ in range(20))
        assert one and one.low is not None and one.high is not None
        hit += one.low <= 5 <= one.high
    assert 0.93 <= hit / 400 <= 0.99


def test_a_slowdown_of_both_paths_is_no_difference() -> None:
    """On a machine that becomes slower, the spread of each path is large but the gateway's cost is exact."""
    direct = [100.0 + 50 * n for n in range(10)]
    (row, *_) = found(ways(direct, [d + 4 for d in direct])).rows
    assert row.verdict == "measured" and row.difference and row.direct
    assert row.difference.median == pytest.approx(4) and row.direct.high - row.direct.low > 100
    assert (
        "comes later by 4.00 ms (1 %) through the gateway (95 % confidence: +4.00 to +4.00 ms)"
        in bench_text.sentence(row)
    )


def test_a_difference_within_the_noise_is_called_not_measurable() -> None:
    direct = [100.0] * 10
    (row, *_) = found(ways(direct, [100 + d for d in (-9, -7, -5, -3, 1, 1, 3, 5, 7, 9)])).rows
    assert row.verdict == "below the noise"
    said = bench_text.sentence(row)
    assert "is within the noise of the pairs" in said and said.endswith("not measurable here")


def test_few_pairs_give_no_verdict_however_large_the_difference() -> None:
    (row, *_) = found(ways([1.0] * 5, [100.0] * 5)).rows
    assert row.verdict == "too few pairs" and "6 are needed" in bench_text.sentence(row)


def test_a_faster_gateway_and_a_lower_rate_are_described() -> None:
    many = found(ways([100.0] * 8, [200.0] * 8, at_once=4)).rows
    rate = next(r for r in many if r.headline)
    assert rate.measure == "requests" and "is lower by 5.00 per s (50 %)" in bench_text.sentence(rate)
    (row, *_) = found(ways([100.0] * 8, [90.0] * 8)).rows
    assert "comes sooner by 10.0 ms (10 %)" in bench_text.sentence(row)


def test_the_main_measure_of_a_stream_is_its_first_token() -> None:
    rows = found([*ways([100.0] * 6, [104.0] * 6, what="stream"), *ways([9.0], [9.0], what="embeddings")]).rows
    assert [(r.what, r.measure) for r in rows if r.headline] == [("stream", "first token"), ("embeddings", "answer")]
    assert [r.measure for r in rows if r.what == "stream"] == ["first token", "answer", "tokens"]
    first, _, tokens = (r.gateway.median for r in rows if r.what == "stream")
    assert [first, tokens] == pytest.approx([26, 32 / 0.104])
    assert [r.measure for r in rows if r.what == "embeddings"] == ["answer"]


def test_a_bursts_rate_counts_all_answers_over_its_whole_time() -> None:
    answers = tuple(Answer(seconds=s, first=0, tokens=10, served="", error="") for s in (0.1, 0.2, 0.9))
    one = Sample(mode="m", what="chat", at_once=3, round=0, way="gateway", seconds=2.0, answers=answers)
    assert [one.value(m) for m in ("answer", "tokens", "requests")] == [200.0, 15.0, 1.5]


def test_a_round_with_an_error_counts_only_as_an_error() -> None:
    samples = ways([100.0] * 7, [100.0] * 7)
    broken = Answer(seconds=0.001, first=0, tokens=0, served="", error="HTTP 503: busy")
    samples[-1] = Sample(
        mode="executor", what="chat", at_once=1, round=6, way="gateway", seconds=0.001, answers=(broken,)
    )
    it = found(samples)
    assert it.errors == (("executor, chat, gateway: HTTP 503: busy", 1),) and it.requests == 14
    assert it.rows[0].difference and it.rows[0].difference.pairs == 6 and it.rows[0].gateway.low == pytest.approx(100)
    assert "errors: 1 of 14 requests\n  1 × executor, chat, gateway: HTTP 503: busy" in bench_text.text(it, plot=False)


def test_a_case_may_be_measured_through_the_gateway_only() -> None:
    it = found(ways([], [100.0] * 6), "why")
    assert it.rows[0].direct is None and it.rows[0].verdict == "only the gateway"
    shown = bench_text.text(it, plot=True)
    assert "nothing to compare it with" in shown and "note: why" in shown and "direct  " not in shown.split("\n\n")[1]


def test_different_amounts_of_work_are_noted() -> None:
    samples = ways([100.0] * 2, [100.0])
    longer = Answer(seconds=0.1, first=0, tokens=64, served="", error="")
    samples[-1] = Sample(
        mode="executor", what="chat", at_once=1, round=0, way="gateway", seconds=0.1, answers=(longer,)
    )
    assert any("32 tokens directly and 64 through the gateway" in n for n in found(samples).notes)
    assert not found(ways([1.0], [2.0])).notes


def test_requests_served_by_another_deployment_are_noted(plan: Plan) -> None:
    listed = of(plan, "executor")
    answers = tuple(Answer(seconds=1, first=0, tokens=1, served=n, error="") for n in ("executor.1.main", "rescue.1.x"))
    one = Sample(mode="executor", what="chat", at_once=2, round=0, way="gateway", seconds=1, answers=answers)
    assert [n.split(" served")[0] for n in bench.elsewhere(listed, [one])] == ["executor, chat: rescue.1.x"]


# -- output


def test_the_table_lines_up_and_has_no_colour() -> None:
    it = found(
        [*ways([100.0 + n for n in range(9)], [104.0 + n for n in range(9)]), *ways([1.0], [2.0], what="stream")]
    )
    shown = bench_text.table(it.rows)
    assert "\x1b" not in shown and "executor, chat, one at a time (9 rounds)" in shown
    head, _, row, *_ = shown.splitlines()
    assert row.startswith("  answer, ms ") and row.index("104 (") == head.index("direct")
    assert row.index("108 (106 to 110)") == head.index("through the gateway")
    assert row.index("+4.00 (+4.00 to +4.00)") == head.index("difference")


def test_the_picture_is_to_scale_and_fits_eighty_columns() -> None:
    shown = bench_text.picture(found(ways([100.0] * 8, [200.0] * 8)).rows)
    direct, gateway = (line for line in shown.splitlines() if line.startswith(("  direct", "  gateway")))
    assert (direct.count("█") + 1) * 2 == gateway.count("█") + 1 == console.BAR
    assert all(len(line) <= 80 for line in shown.splitlines()) and "\x1b" not in shown
    zero = next(line for line in shown.splitlines() if "●" in line)
    assert zero.index("┊") < zero.index("●") and zero.endswith("+100")


@pytest.mark.parametrize(
    ("low", "middle", "high", "drawn"),
    [
        (0.0, 0.0, 0.0, "│"),
        (50.0, 75.0, 100.0, "█" * 20 + "▒" * 9 + "│" + "▒" * 10),
        (100.0, 100.0, 100.0, "█" * 39 + "│"),
    ],
)
def test_a_bar_shows_the_middle_half_and_the_median(low: float, middle: float, high: float, drawn: str) -> None:
    assert bench_text.bar(Spread(median=middle, low=low, high=high, count=9), 100.0) == drawn


def test_a_range_is_drawn_around_zero() -> None:
    noisy = [100 + d for d in (-9, -7, -5, -3, 1, 1, 3, 5, 7, 9)]
    shown = bench_text.picture(found(ways([100.0] * 10, [float(n) for n in noisy])).rows)
    line = next(line for line in shown.splitlines() if "●" in line)
    assert "┼" in line and "┊" not in line


def test_a_difference_that_is_negative_or_none_at_all_can_be_drawn() -> None:
    for gateway in (50.0, 100.0):
        assert "●" in bench_text.picture(found(ways([100.0] * 8, [gateway] * 8)).rows)
    assert bench_text.picture(()) == "" and bench_text.table(()) == ""


def test_programs_get_numbers_and_the_sentences() -> None:
    data = json.loads(json.dumps(bench_text.data(found(ways([100.0] * 6, [104.0] * 6), "n"))))
    row = data["rows"][0]
    assert (row["mode"], row["measure"], row["verdict"]) == ("executor", "answer", "measured")
    assert row["difference"]["median"] == pytest.approx(4) and row["direct"]["count"] == 6
    assert data["errors"] == [] and data["notes"] == ["n"] and len(data["in_words"]) == 1


# -- the run


def says(*lines: dict[str, Any]) -> list[str]:
    return [json.dumps({"kind": kind, **rest}) for line in lines for kind, rest in line.items()]


def warmed(number: int, way: str, error: str = "") -> dict[str, Any]:
    answer = {"seconds": 0.1, "first": 0.0, "tokens": 8, "served": "", "error": error}
    return {"warm": {"case": number, "way": way, **answer}}


DONE = {"done": {"seconds": 1.0, "cut": False}}


class Stack:
    """Tools of a running stack whose measuring program prints the given lines."""

    def __init__(
        self, root: Path, lines: list[str], code: int = 0, *, failure: type[BaseException] | None = None
    ) -> None:
        self.lines, self.code, self.failure = lines, code, failure
        self.argv: list[str] = []
        self.stdin = b""
        self.ran: list[list[str]] = []
        (root / "runtime").mkdir()
        (root / "runtime/routing.yaml").write_text(TABLE, "utf-8")
        folder = root / ".io3ops/secrets"
        folder.mkdir(parents=True)
        (folder / "master_key").write_text(KEY, "utf-8")
        (folder / "master_key").chmod(0o600)

    def stream(self, argv: list[str], on_line: Any, *, stdin: bytes = b"") -> Finished:
        self.argv, self.stdin = argv, stdin
        for line in self.lines:
            on_line(line)
        if self.failure:
            raise self.failure
        return Finished(argv=tuple(argv), code=self.code, output="\n".join(self.lines))

    def run(self, argv: list[str], **_: Any) -> Finished:
        self.ran.append(argv)
        return Finished(argv=tuple(argv), code=0, output="")


def measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], *modes: str, **more: Any
) -> tuple[Stack, Any]:
    it = Stack(tmp_path, lines, **more)
    running = SimpleNamespace(running=True, working_dir="")
    tools: Any = SimpleNamespace(
        settings=read_settings({}, tmp_path, {}),
        processes=it,
        engine=SimpleNamespace(
            containers=lambda _: dict.fromkeys(("runtime", "egress", "gateway"), running), command=lambda: "docker"
        ),
    )
    monkeypatch.setattr(images, "gateway_image", lambda _: "io3ops/gateway:x")
    return it, lambda: bench.bench(tools, Options(modes=modes, rounds=1, parallel=2, seconds=5))


def test_the_key_goes_through_stdin_and_is_in_no_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it, run = measured(tmp_path, monkeypatch, says(warmed(0, "direct"), DONE), "embed")
    assert run().rows == ()
    assert KEY.encode() in it.stdin and it.stdin.endswith(b"\n") and not any(KEY in a for a in it.argv)
    assert (
        "--interactive" in it.argv and "--rm" in it.argv and it.argv[it.argv.index("--network") + 1] == "io3ops_runtime"
    )
    assert it.argv.count("--network") == 1 and it.ran == []


def test_the_egress_network_is_joined_only_for_outside_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it, run = measured(tmp_path, monkeypatch, says(DONE), "outside")
    run()
    assert it.argv.count("--network") == 2 and "io3ops_egress" in it.argv


def test_an_unreachable_direct_path_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = says(warmed(0, "direct", "HTTP 503: egress"), warmed(0, "gateway"), DONE)
    _, run = measured(tmp_path, monkeypatch, lines, "outside")
    assert "host.docker.internal:11434/api/chat does not answer from the stack's network (HTTP 503" in run().notes[0]


def test_a_mode_that_answers_on_neither_path_is_not_measured(plan: Plan) -> None:
    said = [warmed(0, way, "HTTP 500")["warm"] for way in ("direct", "gateway")]
    assert bench.one_way(of(plan, "embed"), said) == []
    assert len(bench.one_way(of(plan, "embed"), [said[0], warmed(0, "gateway")["warm"]])) == 1


def test_a_mode_that_fails_at_its_first_request_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = {"case": 1, "way": "gateway", "at_once": 1, "round": 0, "seconds": 0.1}
    answer = {"seconds": 0.1, "first": 0.05, "tokens": 8, "served": "", "error": ""}
    lines = says(
        warmed(0, "gateway", "HTTP 500"), warmed(1, "gateway"), {"sample": {**sample, "answers": [answer]}}, DONE
    )
    _, run = measured(tmp_path, monkeypatch, ["some warning", *lines], "second")
    it = run()
    assert it.errors == (("second, chat, gateway: HTTP 500", 1),) and {r.what for r in it.rows} == {"stream"}


def test_if_no_mode_answers_the_gateway_is_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = measured(tmp_path, monkeypatch, says(warmed(0, "gateway", "HTTP 401: no"), DONE), "embed")
    with pytest.raises(GatewayError, match="no mode answers") as caught:
        run()
    assert caught.value.details == "embed, embeddings: HTTP 401: no"


def test_a_program_that_ends_early_shows_its_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = measured(tmp_path, monkeypatch, ["docker: no such network"], "embed", code=125)
    with pytest.raises(GatewayError) as caught:
        run()
    assert "125" in caught.value.message and "no such network" in caught.value.details


def test_ctrl_c_removes_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it, run = measured(tmp_path, monkeypatch, [], "embed", failure=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run()
    name = it.argv[it.argv.index("--name") + 1]
    assert it.ran == [["docker", "rm", "--force", name]] and name.startswith("io3ops-bench-")


def test_a_stopped_stack_is_reported_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it, run = measured(tmp_path, monkeypatch, [], "embed")
    monkeypatch.setattr(stack, "own_containers", lambda _: {})
    with pytest.raises(ContainerDied, match="not running: runtime") as caught:
        run()
    assert caught.value.hint and it.argv == []


# -- options


def called(monkeypatch: pytest.MonkeyPatch, result: Report, *flags: str) -> tuple[int, str, list[Options]]:
    """Return the exit code, stdout, and the options that the operation got."""
    wishes: list[Options] = []
    out = io.StringIO()

    def stand_in(_tools: object, wish: Options, _show: object) -> Report:
        wishes.append(wish)
        return result

    monkeypatch.setattr(bench, "bench", stand_in)
    monkeypatch.setattr(io3ops.cli.command, "_tools", lambda: None)
    monkeypatch.setattr(
        io3ops.cli.command, "_console", lambda j: Console(Mode.JSON if j else Mode.PLAIN, out, io.StringIO())
    )
    return CliRunner().invoke(io3ops.cli.command.main, ["bench", *flags]).exit_code, out.getvalue(), wishes


def test_flags_become_options(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--mode", "a", "--mode", "b", "--rounds", "3", "--parallel", "1", "--seconds", "9"]
    code, _, wishes = called(monkeypatch, found(ways([1.0], [2.0])), *flags)
    assert code == 0 and wishes == [Options(modes=("a", "b"), rounds=3, parallel=1, seconds=9)]
    assert called(monkeypatch, found([]))[2] == [Options(modes=(), rounds=20, parallel=4, seconds=60)]


@pytest.mark.parametrize(
    "flags", [["--rounds", "0"], ["--parallel", "0"], ["--seconds", "0"], ["--seconds", "x"], ["executor"]]
)
def test_invalid_flags_are_a_wrong_command_line(monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> None:
    code, _, wishes = called(monkeypatch, found([]), *flags)
    assert code == 2 and wishes == []


def test_the_picture_is_drawn_only_with_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    result = found(ways([1.0] * 6, [2.0] * 6))
    assert "█" not in called(monkeypatch, result)[1]
    assert "█" in called(monkeypatch, result, "--plot")[1]


def test_failed_requests_are_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Answer(seconds=1, first=0, tokens=0, served="", error="HTTP 500")
    one = Sample(mode="m", what="chat", at_once=1, round=0, way="direct", seconds=1, answers=(failed,))
    code, out, _ = called(monkeypatch, found([one]), "--json")
    assert code == 1 and json.loads(out)["ok"] is False


def test_a_row_without_a_difference_is_still_a_row() -> None:
    row = Row(
        mode="m", what="chat", at_once=4, measure="answer", unit="ms", direct=None,
        gateway=spread([1.0]), difference=None, verdict="only the gateway",
    )  # fmt: skip
    assert row.case == "m, chat, 4 at a time" and not row.headline and "-" in bench_text.table([row])
