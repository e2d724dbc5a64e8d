"""Hypothesis strategies for routing tables: valid ones, with hostile text wherever text is free."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from string import ascii_lowercase, digits
from typing import Any

import yaml
from hypothesis import strategies as st

# Strings that YAML, Jinja, LiteLLM or a shell would take for something else.
HOSTILE = [
    "no", "on", "~", "null", "1e-07", "0x1f", "012", "1:30", "2026-01-01", "{{ 7 * 7 }}", "{% raw %}", "os.environ/HOME", "a: b", "# c", "- a",
    "'", '"', "é😀", "a\nb", " lead", "trail ", "!!python/none", "&a", "*a", "<<", "|", ">", "%TAG", "\u2028", "\\n", "$(id)", "1_000", "v1.0", "=",
]  # fmt: skip
free_text = st.one_of(
    st.sampled_from(HOSTILE), st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
).filter(lambda t: bool(t.strip()))


def some(**values: Iterable[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of these keys, each with any of its values; one choice, where a strategy per key would take many."""
    given = [[{}, *({name: value} for value in of)] for name, of in values.items()]
    return st.sampled_from([{k: v for part in parts for k, v in part.items()} for parts in product(*given)]).map(dict)


# A mode that is called embed... must make embeddings.
names = st.builds(
    str.__add__, st.sampled_from(ascii_lowercase), st.text(alphabet=ascii_lowercase + digits, max_size=5)
).filter(lambda n: not n.startswith("embed"))
seconds = st.integers(1, 600)
LOCAL: dict[str, dict[str, Any]] = {
    "local": {"kind": "ollama"},
    "served": {"kind": "openai_compatible", "url": "http://localhost:8000/v1"},
    "lan": {"kind": "ollama", "url": "http://10.0.0.7:11434", "locality": "local"},
}
# Of every kind, by a name that stands nowhere else in a rendered file; `host`: what is called then.
CLOUDS: dict[str, dict[str, Any]] = {
    "zzopenai": {"kind": "openai", "host": "api.openai.com"},
    "zzanthropic": {"kind": "anthropic", "host": "api.anthropic.com"},
    "zzgemini": {"kind": "gemini", "host": "generativelanguage.googleapis.com"},
    "zzmistral": {"kind": "mistral", "host": "api.mistral.ai"},
    "zzrouter": {"kind": "openrouter", "host": "openrouter.ai"},
    "zzazure": {
        "kind": "azure",
        "url": "https://zzazure.example/x",
        "api_version": "2024-10-21",
        "host": "zzazure.example",
    },
    "zzbedrock": {"kind": "bedrock", "region": "eu-central-1", "host": "bedrock-runtime.eu-central-1.amazonaws.com"},
    "zzother": {
        "kind": "openai_compatible",
        "url": "https://zzother.example:8443/v1",
        "locality": "cloud",
        "host": "zzother.example",
    },
}
# Who may call in the tests that ask, by name: the class that their keys say.
CALLERS = {"anna": "", "ines": "internal", "paul": "public"}


def in_yaml(table: dict[str, Any]) -> bytes:
    """The table's YAML, as `yaml.safe_dump` writes it; in C where there is one, because tests write hundreds."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(table, Dumper=dumper, sort_keys=False, allow_unicode=True)).encode()


def from_yaml(text: str) -> Any:
    """What `yaml.safe_load` reads; in C where there is one."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  a safe loader


def cloud_host(name: str) -> str:
    return str(CLOUDS[name]["host"])


@st.composite
def providers(draw: st.DrawFn) -> dict[str, Any]:
    """The local ones, and any clouds: enabled, disabled in words, or not mentioned to be."""
    found: dict[str, Any] = {name: dict(entry) for name, entry in LOCAL.items()}
    least = draw(st.sampled_from([1, 1, 1, 0]))
    for name in draw(st.lists(st.sampled_from(sorted(CLOUDS)), min_size=least, max_size=3, unique=True)):
        entry = {key: value for key, value in CLOUDS[name].items() if key != "host"} | {"key": f"{name}-key"}
        found[name] = entry | draw(st.sampled_from([{"enabled": True}] * 4 + [{"enabled": False}, {}]))
    return found


def enabled(table: dict[str, Any], model: str) -> bool:
    """Whether a model's provider is: the local ones are unless told, the clouds when told."""
    name = table["models"][model]["provider"]
    return bool(table["providers"][name].get("enabled", name in LOCAL))


def members(chain: list[Any]) -> list[str]:
    """Every model of a chain in its order."""
    return [model for step in chain for model in ([step] if isinstance(step, str) else step)]


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """A valid table: two to five models here and in clouds, two to six modes, any mix of the language's words."""
    table: dict[str, Any] = {
        "version": 1,
        "title": draw(free_text),
        "providers": draw(providers()),
        "models": {},
        "modes": {},
    }
    clouds = [name for name in table["providers"] if name in CLOUDS]
    models: dict[str, Any] = table["models"]
    drawn = draw(st.lists(names, min_size=2, max_size=5, unique=True))
    for number, name in enumerate(drawn):
        # The first is local, so that every chain can be made to serve.
        where = sorted(LOCAL) + (clouds * 4 if number else [])
        models[name] = {"provider": draw(st.sampled_from(where)), "source": {"external": f"vendor/zz{name}:1"}}
        models[name] |= draw(
            st.fixed_dictionaries({}, optional={"context": st.integers(128, 99999), "keep_alive": st.just("5m")})
        )
    modes: dict[str, Any] = table["modes"]
    for name in draw(st.lists(names, min_size=2, max_size=5, unique=True)):
        modes[name] = draw(_mode(table, drawn))
    if draw(st.booleans()):
        models["vec"] = {
            "provider": draw(st.sampled_from([*LOCAL, *clouds])),
            "source": {"external": "vendor/zzvec:1"},
            "capabilities": ["embeddings"],
        }
        if enabled(table, "vec"):
            modes["embed"] = {"chain": ["vec"]} | draw(st.sampled_from([{}, {"data_class": "public"}]))
    _overrides(draw, table)
    ordered = [name for name in modes if name != "embed"]
    for index, name in enumerate(ordered[:-1]):
        # Only forwards, so that there is no circle.
        target = st.sampled_from(ordered[index + 1 :])
        kinds = {"error": target, "context_overflow": target, "content_policy": target}
        if fallbacks := draw(st.fixed_dictionaries({}, optional=kinds)):
            modes[name]["fallbacks"] = fallbacks
    if default := draw(st.sampled_from(["", "internal", "public"])):
        table["defaults"] = {"data_class": default}
    return table


@st.composite
def _mode(draw: st.DrawFn, table: dict[str, Any], models: list[str]) -> dict[str, Any]:
    order = draw(st.permutations(models))
    chain: list[Any] = []
    while order:
        size = draw(st.integers(1, len(order)))
        step, order = order[:size], order[size:]
        chain.append(step[0] if size == 1 else {m: draw(st.integers(1, 9)) for m in step})
        if draw(st.booleans()):
            break
    if not any(enabled(table, model) for model in members(chain)):
        chain.append(models[0])
    step_seconds = draw(seconds)
    timeouts = {"step": f"{step_seconds}s", "first_token": f"{draw(st.integers(1, step_seconds))}s"}
    return {"chain": chain, "timeouts": timeouts} | draw(
        st.fixed_dictionaries(
            {},
            optional={
                "purpose": free_text,
                "system_prompt": free_text,
                "retries": some(rate_limit=range(4), server_error=range(4)),
                "limits": some(parallel=range(1, 10), requests_per_minute=range(1, 10)),
                "forced": st.fixed_dictionaries(
                    {},
                    optional={
                        "temperature": st.floats(0.001, 2).map(lambda f: round(f, 6)),
                        "stop": st.lists(free_text, min_size=1, max_size=2),
                    },
                ),
                "allow": some(tools=(False, True), images=(False, True)),
                "data_class": st.sampled_from(["internal", "public"]),
            },
        )
    )


def _overrides(draw: st.DrawFn, table: dict[str, Any]) -> None:
    """Let some callers override in some modes, and no internal mode have a cloud that nobody could use."""
    modes, models = table["modes"], table["models"]
    far = {name for name, mode in modes.items() if any(models[m]["provider"] in CLOUDS for m in members(mode["chain"]))}
    may = sorted(
        n for n in far if any(enabled(table, m) and models[m]["provider"] in CLOUDS for m in members(modes[n]["chain"]))
    )
    overrides = {
        caller: {"modes": named}
        for caller in CALLERS
        if may and (named := draw(st.lists(st.sampled_from(may), max_size=2, unique=True)))
    }
    if overrides:
        table["overrides"] = overrides
    allowed = {name for entry in overrides.values() for name in entry["modes"]}
    for name in far - allowed:
        if modes[name].get("data_class") == "internal":
            modes[name] |= {"data_class": "public"}
