"""Endpoints and fields that are served, and content that an internal prompt must not have."""

from __future__ import annotations

from typing import Any

import pytest

from io3ops_gateway.errors import Refusal
from io3ops_gateway.policy import endpoints
from io3ops_gateway.policy.endpoints import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    Endpoint,
    check_content,
    kept,
)

ALL = [*endpoints.SERVED.values(), *endpoints.EXTRA.values()]
# Fields with which a client of LiteLLM chooses where a request goes, what it costs, who hears of it, and what comes back.
WORDS = """fallbacks context_window_fallbacks content_policy_fallbacks default_fallbacks api_base base_url api_key api_version
organization user_config model_list mock_response mock_testing_fallbacks mock_timeout mock_tool_calls callbacks success_callback
failure_callback service_callback litellm_params litellm_call_id litellm_logging_obj router_settings_override deployment_id
specific_deployment model_info model_group custom_llm_provider num_retries max_retries retry_policy timeout request_timeout
stream_timeout force_timeout num_ctx keep_alive extra_headers headers extra_query default_headers cache caching ttl s-maxage no-log
no_log guardrails prompt_id prompt_variables prompt_version_number aws_region_name aws_access_key_id aws_secret_access_key
aws_bedrock_runtime_endpoint vertex_project vertex_location vertex_credentials azure_ad_token proxy_server_request
secret_fields allowed_model_region input_cost_per_token use_in_pass_through mcp_servers server_url plugins transforms models route
provider provider_options enable_json_schema_validation disable_fallbacks drop_params additional_drop_params merge_reasoning_content_in_choices
litellm_session_id litellm_trace_id chat_id files attachments search_parameters vector_store_ids knowledge_base"""
ROUTING = WORDS.split()


def test_exactly_these_paths_are_served() -> None:
    chat = {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"}
    bare = {"/chat/completions", "/completions", "/embeddings", "/responses"}
    assert set(endpoints.paths(())) == chat | bare
    more = {"/v1/moderations", "/moderations", "/v1/images/generations", "/v1/audio/speech"}
    assert set(endpoints.paths({"moderations", "images", "speech"})) == chat | bare | more
    assert set(endpoints.paths({"images", "chat"})) == chat | bare | {"/v1/images/generations"}
    assert set(endpoints.paths({"files", "batches", "chat", "embeddings", "*"})) == chat | bare


def test_each_path_is_for_one_task() -> None:
    tasks = {path: endpoint.task for path, endpoint in endpoints.paths({"moderations", "images", "speech"}).items()}
    others = {
        "/v1/embeddings": "embeddings",
        "/embeddings": "embeddings",
        "/v1/moderations": "moderations",
        "/moderations": "moderations",
        "/v1/images/generations": "images",
        "/v1/audio/speech": "speech",
    }
    assert tasks == {path: others.get(path, "chat") for path in tasks}


@pytest.mark.parametrize("endpoint", ALL, ids=lambda e: e.name)
def test_routing_fields_are_never_handed_on_and_are_listed(endpoint: Endpoint) -> None:
    found, ignored = kept(endpoint, {"model": "m", **dict.fromkeys(ROUTING, "x")})
    assert found == {"model": "m"} | ({"store": False} if endpoint is RESPONSES else {})
    assert ignored == sorted(name[:40] for name in ROUTING)


@pytest.mark.parametrize("endpoint", ALL, ids=lambda e: e.name)
def test_marks_are_not_handed_on_or_listed(endpoint: Endpoint) -> None:
    marks = {
        "metadata": {"data_class": "internal"},
        "litellm_metadata": {},
        "tags": ["internal"],
        "data_class": "internal",
    }
    found, ignored = kept(endpoint, {"model": "m", "extra_body": {"fallbacks": ["x"]}, **marks})
    assert found == {"model": "m"} | ({"store": False} if endpoint is RESPONSES else {}) and ignored == []


def test_supported_fields_are_handed_on_unchanged() -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 0, "stream": True, "tools": []}
    assert kept(CHAT, chat) == (chat, [])
    completion = {"model": "m", "prompt": "p", "suffix": "s"}
    assert kept(COMPLETIONS, completion) == (completion, [])
    embedding = {"model": "m", "input": ["a"], "dimensions": 3}
    assert kept(EMBEDDINGS, embedding) == (embedding, [])
    message = {"model": "m", "max_tokens": 1, "system": "s", "messages": [], "thinking": {"type": "enabled"}}
    assert kept(MESSAGES, message) == (message, [])


@pytest.mark.parametrize("given", [{}, {"store": True}, {"store": None}, {"store": "true"}])
def test_a_response_is_never_stored_at_a_provider(given: dict[str, Any]) -> None:
    found, ignored = kept(RESPONSES, {"model": "m", "input": "x", **given})
    assert found["store"] is False and ignored == []
    assert "store" not in kept(CHAT, {"model": "m", **given})[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("conversation", "c"),
        ("conversation", {"id": "c"}),
        ("background", True),
        ("prompt", {"id": "p"}),
    ],
)
def test_a_conversation_kept_elsewhere_is_refused(name: str, value: object) -> None:
    with pytest.raises(Refusal, match=name) as caught:
        kept(RESPONSES, {"model": "m", "input": "x", name: value})
    assert (caught.value.status, caught.value.code) == (400, "stateless")
    empty: Any = None if isinstance(value, (str, dict)) else False
    assert name not in kept(RESPONSES, {"model": "m", name: empty})[0], "and an empty one is dropped"


# -- content


def chat(*parts: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": list(parts)}]}


LINKS: list[dict[str, Any]] = [
    chat({"type": "image_url", "image_url": {"url": "https://elsewhere/x.png"}}),
    chat({"type": "image_url", "image_url": {"url": "http://169.254.169.254/", "detail": "low"}}),
    chat({"type": "image_url", "image_url": "https://elsewhere/x.png"}),
    chat({"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "HTTPS://elsewhere/x.png"}}),
    chat({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}),
    chat({"type": "image_url", "image_url": {"url": "gs://bucket/x"}}),
    chat({"type": "image_url", "image_url": {"url": "//elsewhere/x.png"}}),
    chat({"type": "image_url", "image_url": {"url": ""}}),
    chat({"type": "image_url", "image_url": {"url": " data:image/png;base64,AA"}}),
    chat({"type": "image_url", "image_url": {"url": "xdata:image/png;base64,AA"}}),
    chat({"type": "image", "source": {"type": "url", "url": "https://elsewhere/x.png"}}),
    chat({"type": "image", "source": {"type": "file", "file_id": "file_1"}}),
    chat({"type": "document", "source": {"type": "url", "url": "https://elsewhere/x.pdf"}}),
    chat({"type": "file", "file": {"file_id": "file-1"}}),
    chat({"type": "video_url", "video_url": {"url": "https://elsewhere/x.mp4"}}),
    chat({"type": "audio_url", "audio_url": {"url": "https://elsewhere/x.wav"}}),
    chat({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "https://elsewhere"}}]}),
    chat({"type": "invented_by_someone", "deep": [[{"er": {"url": "https://elsewhere"}}]]}),
    {"messages": [{"role": "user", "image_url": "https://elsewhere"}]},
    {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://elsewhere/x.png"}]}]},
    {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]},
    {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://elsewhere/x.pdf"}]}]},
    {"input": [{"type": "function_call_output", "output": [{"type": "input_image", "image_url": "https://elsewhere"}]}]},
    {"input": [{"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "https://e"}}]},
    {"input": [{"type": "mcp_approval_request", "server_url": "https://elsewhere"}]},
    {"input": {"url": "https://elsewhere"}},
    {"system": [{"type": "image", "source": {"type": "url", "url": "https://elsewhere"}}]},
]  # fmt: skip


@pytest.mark.parametrize("body", LINKS)
def test_nothing_is_fetched_for_an_internal_prompt(body: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        check_content(body, internal=True)
    assert (caught.value.status, caught.value.code) == (400, "link_not_allowed")
    check_content(body, internal=False)


@pytest.mark.parametrize(
    "body",
    [
        chat({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}),
        chat({"type": "image_url", "image_url": "data:image/png;base64,AA"}),
        chat({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}),
        chat({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}),
        chat({"type": "text", "text": "look at https://elsewhere/x.png"}),
        chat({"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "x.pdf"}}),
        {"messages": [{"role": "user", "content": "https://elsewhere"}], "input": "https://elsewhere"},
        {"input": ["https://elsewhere", "http://other"]},
        {"input": [[1, 2, 3]]},
        # What a model asked of a tool of the client's, and what a tool may be asked.
        chat({"type": "tool_use", "id": "t", "name": "fetch", "input": {"url": "https://elsewhere"}}),
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"url": "https://e"}'}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"url": "https://e"}}}]}]},
        {"input": [{"type": "function_call", "name": "f", "arguments": '{"url": "https://elsewhere"}'}]},
        {"input": [{"type": "custom_tool_call", "name": "f", "input": {"url": "https://elsewhere"}}]},
        {"messages": [{"role": "assistant", "content": "x", "annotations": [{"url_citation": {"url": "https://e"}}]}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"url": {"default": "https://e"}}}}}]},
        {"tools": [{"name": "f", "input_schema": {"properties": {"url": {"type": "string"}}}}]},
        {"tools": [{"type": "custom", "name": "f"}, {"type": "bash_20250124"}, {"type": "text_editor_20250728"}]},
        {"tools": None, "messages": None, "input": None, "system": "https://elsewhere"},
        {"response_format": {"type": "json_schema", "json_schema": {"url": "https://elsewhere"}}},
        {},
    ],
)  # fmt: skip
def test_lookalikes_of_links_are_accepted(body: dict[str, Any]) -> None:
    check_content(body, internal=True)


@pytest.mark.parametrize("role", ["tool_use", "custom_tool_call"])
def test_only_a_tools_own_input_is_not_searched_for_links(role: str) -> None:
    for body in (
        chat(
            {"type": role, "input": {}, "content": [{"type": "image_url", "image_url": {"url": "https://elsewhere"}}]}
        ),
        chat({"type": "message", "input": {"url": "https://elsewhere"}}),
    ):
        with pytest.raises(Refusal):
            check_content(body, internal=True)


SERVER_TOOLS = ["web_search", "web_search_preview", "web_search_20250305", "web_fetch_20250910", "code_execution_20250522",
    "file_search", "code_interpreter", "image_generation", "computer", "url_context", "google_search", "invented",
    "Function", "function ", ""]  # fmt: skip


@pytest.mark.parametrize("kind", SERVER_TOOLS)
def test_a_tool_that_another_server_runs_is_not_for_internal_prompts(kind: str) -> None:
    body = {"tools": [{"type": "function"}, {"type": kind, "name": "x"}]}
    with pytest.raises(Refusal) as caught:
        check_content(body, internal=True)
    assert (caught.value.status, caught.value.code) == (400, "tool_not_allowed")
    check_content(body, internal=False)


@pytest.mark.parametrize("kind", ["mcp", "mcp_toolset"])
@pytest.mark.parametrize("internal", [True, False])
def test_an_mcp_server_is_refused_for_every_prompt(kind: str, internal: bool) -> None:
    """LiteLLM itself would call it, from inside the gateway."""
    with pytest.raises(Refusal) as caught:
        check_content({"tools": [{"type": kind, "server_url": "https://elsewhere"}]}, internal=internal)
    assert caught.value.code == "tool_not_allowed"


@pytest.mark.parametrize("options", [{}, {"search_context_size": "low"}, False])
def test_a_web_search_is_not_for_internal_prompts(options: object) -> None:
    with pytest.raises(Refusal) as caught:
        check_content({"web_search_options": options}, internal=True)
    assert (caught.value.status, caught.value.code) == (400, "tool_not_allowed")
    check_content({"web_search_options": options}, internal=False)
    check_content({"web_search_options": None}, internal=True)


def test_the_message_quotes_only_the_beginning_of_a_link() -> None:
    with pytest.raises(Refusal) as link:
        check_content(chat({"type": "image_url", "image_url": {"url": "https://" + "x" * 5000}}), internal=True)
    with pytest.raises(Refusal) as tool:
        check_content({"tools": [{"type": "x" * 5000}]}, internal=True)
    assert len(link.value.message) < 300 and len(tool.value.message) < 300


def test_a_deeply_nested_body_is_refused_without_a_crash() -> None:
    deep: Any = "x"
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(Refusal) as caught:
        check_content({"input": deep}, internal=True)
    assert (caught.value.status, caught.value.code) == (400, "too_deep")


def test_links_in_a_list_are_links() -> None:
    with pytest.raises(Refusal):
        check_content(chat({"type": "image_url", "image_url": ["https://elsewhere/x.png"]}), internal=True)
