"""The result of `io3ops up`: for programs, and as instructions for the first call."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from io3ops.operations.lifecycle.up import Run

_PROXIES = ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY")


def data(run: Run) -> dict[str, Any]:
    """Return the result for programs."""
    settings, plan = run.tools.settings, run.config.plan
    return {
        "endpoint": settings.base_url,
        "key_file": str(settings.key_file),
        "modes": {mode: [d.runtime_name for d in plan.chain(mode)] for mode in plan.modes},
        "acted": run.acted,
        "checks": [asdict(c) for c in run.checks],
    }


def text(run: Run, folder: Path) -> str:
    """Render the endpoint, the modes and lines to paste. They must work in `folder`, and with a proxy in the environment."""
    settings, plan, table = run.tools.settings, run.config.plan, run.config.table
    width = max(len(mode) for mode in plan.modes)
    chat = next((m for m in plan.modes if plan.task(m) == "chat"), plan.modes[0])
    rows = []
    for mode in plan.modes:
        chain = " → ".join(f"{d.model} ({table.model(d.model).source.name})" for d in plan.chain(mode))
        rows.append(f"    {mode:<{width}}  {chain}")
    path = str(settings.key_file.relative_to(settings.root) if folder == settings.root else settings.key_file)
    in_shell, in_python = shlex.quote(path), json.dumps(path, ensure_ascii=False)
    curl = "curl -s --noproxy '*'" if any(settings.environment.get(name) for name in _PROXIES) else "curl -s"
    modes = "\n".join(rows)
    return f"""
  Endpoint  {settings.base_url}
  Key       {in_shell}   (`io3ops key --show` prints it)
  Modes
{modes}

  Try it:
    {curl} {settings.base_url}/chat/completions -H "Authorization: Bearer $(cat {in_shell})" \\
      -H 'Content-Type: application/json' -d '{{"model": "{chat}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

  From Python (pip install openai):
    from openai import OpenAI
    client = OpenAI(base_url="{settings.base_url}", api_key=open({in_python}).read().strip())
    print(client.chat.completions.create(model="{chat}", messages=[{{"role": "user", "content": "Hello!"}}]).choices[0].message.content)

  Next: edit runtime/routing.yaml and run `io3ops apply`; `io3ops preset` offers larger models (.venv/bin/io3ops).
"""
