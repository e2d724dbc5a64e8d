"""Keep what users write out of the container's log. Touches the logging of this process.

A provider may repeat the request in its error, LiteLLM logs that error with some seventy lines of traceback, and `turn_off_message_logging`
covers neither. So, once requests can come, a log line says only where an error happened and of which kind it is: that is enough to see
*that* something fails. The client still gets the text.
"""

import logging
import re
import sys
from typing import Any

from io3ops_gateway.request.context import CURRENT

# A client may choose its call id, so only an id of the shape that LiteLLM itself makes is logged.
_CALL_ID = re.compile(r"litellm_call_id=([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")


def install() -> None:
    """Replace the text of every log record of this process, from whichever library, with a summary."""
    make = logging.getLogRecordFactory()

    def make_redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.msg = summary(record)
        record.args = None
        record.exc_info = record.exc_text = record.stack_info = None
        return record

    logging.setLogRecordFactory(make_redacted)


def summary(record: logging.LogRecord) -> str:
    """Return the kind of error, its HTTP status and the ids of call and request, as far as they are known."""
    # LiteLLM often logs inside an `except` without attaching the exception.
    error = (record.exc_info or sys.exc_info())[1]
    facts = [type(error).__name__ if error is not None else "message"]
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        facts.append(f"status {status}")
    if call := _CALL_ID.search(_text(record)):
        facts.append(f"call {call[1]}")
    if context := CURRENT.get():
        facts.append(f"request {context.record.id}")
    return ", ".join(facts) + " (text withheld; set LITELLM_LOG=ERROR to see it)"


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        # The arguments do not fit the format; `logging` itself would print both.
        return ""
