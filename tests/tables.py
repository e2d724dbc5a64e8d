"""Hypothesis strategies for routing tables: valid ones, with hostile text wherever text is free."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

# Strings that YAML, Jinja, LiteLLM or a shell would take for something else.
HOSTILE = [
    "no", "on", "~", "null", "1e-07", "0x1f", "012", "1:30", "2026-01-01", "{{ 7 * 7 }}", "{% raw %}", "os.environ/HOME", "a: b", "# c", "- a",
    "'", '"', "é😀", "a\nb", " lead", "trail ", "!!python/none", "&a", "*a", "<<", "|", ">", "%TAG", "\u2028", "\\n", "$(id)", "1_000", "v1.0", "=",
]  # fmt: skip
free_text = st.one_of(
    st.sampled_from(HOSTILE), st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
).filter(lambda t: bool(t.strip()))
names = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
seconds = st.integers(1, 600)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """A valid table: one to four models, one to four modes, any mix of the language's words."""
    models: dict[str, Any] = {}
    for name in draw(st.lists(names, min_size=1, max_size=4, unique=True)):
        models[name] = {
            "provider": draw(st.sampled_from(["local", "served"])),
            "source": {"external": f"vendor/{name}:1"},
        }
        models[name] |= draw(
            st.fixed_dictionaries({}, optional={"context": st.integers(128, 99999), "keep_alive": st.just("5m")})
        )
    modes: dict[str, Any] = {}
    for name in draw(st.lists(names, min_size=1, max_size=4, unique=True)):
        order = draw(st.permutations(sorted(models)))
        chain: list[Any] = []
        while order:
            size = draw(st.integers(1, len(order)))
            members, order = order[:size], order[size:]
            chain.append(members[0] if size == 1 else {m: draw(st.integers(1, 9)) for m in members})
            if draw(st.booleans()):
                break
        step = draw(seconds)
        mode = {"chain": chain, "timeouts": {"step": f"{step}s", "first_token": f"{draw(st.integers(1, step))}s"}}
        mode |= draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "purpose": free_text,
                    "system_prompt": free_text,
                    "retries": st.fixed_dictionaries(
                        {}, optional={"rate_limit": st.integers(0, 3), "server_error": st.integers(0, 3)}
                    ),
                    "limits": st.fixed_dictionaries(
                        {}, optional={"parallel": st.integers(1, 9), "requests_per_minute": st.integers(1, 9)}
                    ),
                    "forced": st.fixed_dictionaries(
                        {},
                        optional={
                            "temperature": st.floats(0.001, 2).map(lambda f: round(f, 6)),
                            "stop": st.lists(free_text, min_size=1, max_size=2),
                        },
                    ),
                    "allow": st.fixed_dictionaries({}, optional={"tools": st.booleans(), "images": st.booleans()}),
                    "data_class": st.just("internal"),
                },
            )
        )
        modes[name] = mode
    ordered = list(modes)
    for index, name in enumerate(ordered[:-1]):
        if draw(st.booleans()):
            # Only forwards, so that there is no circle.
            target = draw(st.sampled_from(ordered[index + 1 :]))
            modes[name]["fallbacks"] = {draw(st.sampled_from(["error", "context_overflow", "content_policy"])): target}
    return {
        "version": 1,
        "title": draw(free_text),
        "providers": {
            "local": {"kind": "ollama"},
            "served": {"kind": "openai_compatible", "url": "http://localhost:8000/v1"},
        },
        "models": models,
        "modes": modes,
    }
