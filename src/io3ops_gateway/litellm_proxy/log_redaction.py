"""Keeps what users write out of the container's log. Touches the logging of this process.

A provider may repeat the request in its error, LiteLLM logs that error with some seventy lines of traceback,
and `turn_off_message_logging` does not reach either. So, once requests can come, a log line says where and
what kind, and no more: free text is never needed to see *that* something fails. The client still gets it.
"""

import logging
import re
import sys
from typing import Any

from io3ops_gateway.request.context import CURRENT

# A client may choose its call id; only the shape LiteLLM itself makes is let through.
_CALL_ID = re.compile(r"litellm_call_id=([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")


def withhold_text() -> None:
    """From now on every log record of this process, whoever writes it, carries a summary and no free text."""
    make = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.msg = summary(record)
        record.args = None
        record.exc_info = record.exc_text = record.stack_info = None
        return record

    logging.setLogRecordFactory(factory)


def summary(record: logging.LogRecord) -> str:
    """The kind of error, its HTTP status and LiteLLM's id of the call, as far as they are known."""
    # LiteLLM often logs inside an `except` without attaching the exception.
    error = (record.exc_info or sys.exc_info())[1]
    words = [type(error).__name__ if error is not None else "message"]
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        words.append(f"status {status}")
    if call := _CALL_ID.search(_text(record)):
        words.append(f"call {call[1]}")
    if context := CURRENT.get():
        words.append(f"request {context.record.id}")
    return ", ".join(words) + " (text withheld; set LITELLM_LOG=ERROR to see it)"


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        # Arguments that do not fit their format: logging itself would print both.
        return ""
