"""Nothing that a user wrote reaches the log."""

import logging
import sys
from collections.abc import Iterator

import pytest

from io3ops_gateway.litellm_proxy import log_redaction


class RefusedError(Exception):
    """An error as LiteLLM's are: with a status, and with the request in its text."""

    status_code = 400


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


def test_text_arguments_and_traceback_are_withheld(caplog: pytest.LogCaptureFixture) -> None:
    log_redaction.install()
    try:
        raise RefusedError("cannot answer CANARY")
    except RefusedError as error:
        logging.getLogger("LiteLLM Proxy").exception("failed: %s", error)
        logging.getLogger("LiteLLM").error(f"failed: {error}")
    assert "CANARY" not in caplog.text
    assert "Traceback" not in caplog.text
    assert caplog.messages[0].startswith("RefusedError, status 400")
    assert caplog.messages[1].startswith("RefusedError, status 400")


def test_the_id_of_a_call_is_kept_only_when_litellm_made_it(caplog: pytest.LogCaptureFixture) -> None:
    log_redaction.install()
    logging.getLogger("x").error("litellm_call_id=884d08b4-9ba0-422f-906c-fd2362e01abf - boom")
    logging.getLogger("x").error("litellm_call_id=my-CANARY-id - boom")
    assert "call 884d08b4-9ba0-422f-906c-fd2362e01abf" in caplog.messages[0]
    assert caplog.messages[1].startswith("message (text withheld")


def test_arguments_that_do_not_fit_their_format_are_withheld_too(caplog: pytest.LogCaptureFixture) -> None:
    log_redaction.install()
    logging.getLogger("x").error("%d", "CANARY")
    assert caplog.messages[0].startswith("message (text withheld")


def test_the_traceback_of_a_record_is_gone_and_not_only_hidden() -> None:
    log_redaction.install()
    try:
        raise ValueError("CANARY")
    except ValueError:
        record = logging.getLogger("x").makeRecord("x", 40, "f", 1, "%s", ("CANARY",), sys.exc_info())
    assert record.exc_info is None and record.args is None and record.stack_info is None
    assert "CANARY" not in logging.Formatter().format(record)
