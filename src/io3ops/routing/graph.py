"""The routing picture: Mermaid text, and the same as SVG. Pure."""

from __future__ import annotations

from html import escape

from io3ops.routing.plan import Deployment, Plan

BEGIN = "<!-- io3ops graph: begin -->"
END = "<!-- io3ops graph: end -->"


def mermaid(plan: Plan) -> str:
    """Draw modes, the models of their steps, and the fallbacks between modes."""
    lines = ["flowchart LR"]
    modes = {m.name: f"m{i}" for i, m in enumerate(plan.policies)}
    models = {m.model.name: f"d{i}" for i, m in enumerate(plan.models)}
    for mode in plan.policies:
        label = mode.name + (f"<br/>also {', '.join(mode.aliases)}" if mode.aliases else "")
        lines.append(f'  {modes[mode.name]}(["{_quoted(label)}"])')
    for model in plan.models:
        place = "local" if model.local else "cloud"
        lines.append(
            f'  {models[model.model.name]}["{_quoted(model.model.name)}<br/>{_quoted(model.runtime_name)}<br/>{place}"]'
        )
    for deployment in (d for m in plan.modes for d in plan.chain(m)):
        lines.append(f'  {modes[deployment.mode]} -- "{_label(plan, deployment)}" --> {models[deployment.model]}')
    for mode in plan.policies:
        for kind, target in mode.fallbacks:
            lines.append(f'  {modes[mode.name]} -. "{kind.replace("_", " ")}" .-> {modes[target]}')
    return "\n".join(lines) + "\n"


def in_document(document: str, picture: str) -> str:
    """Return the document with the picture between its marks; append both when it has no marks."""
    block = f"{BEGIN}\n```mermaid\n{picture}```\n{END}"
    if BEGIN in document and END in document:
        return document[: document.index(BEGIN)] + block + document[document.index(END) + len(END) :]
    return document.rstrip("\n") + ("\n\n" if document.strip() else "") + block + "\n"


def svg(plan: Plan) -> str:
    """Draw modes on the left, models on the right, and a line for each deployment."""
    row, left, right, width = 54, 20, 430, 720
    heights = {m.name: 30 + i * row for i, m in enumerate(plan.policies)}
    models = {m.model.name: 30 + i * row for i, m in enumerate(plan.models)}
    height = 30 + row * max(len(heights), len(models))
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for deployment in (d for m in plan.modes for d in plan.chain(m)):
        y1, y2 = heights[deployment.mode] + 17, models[deployment.model] + 17
        dash = "" if deployment.order == 1 else ' stroke-dasharray="6 4"'
        out.append(
            f'<line x1="{left + 190}" y1="{y1}" x2="{right}" y2="{y2}" stroke="#55606e" stroke-width="1.5"{dash}/>'
        )
        out.append(
            f'<text x="{left + 200}" y="{y1 - 5 + 15 * (deployment.order - 1)}" fill="#55606e" font-size="11">{_label(plan, deployment)}</text>'
        )
    for name, y in heights.items():
        out.append(f'<rect x="{left}" y="{y}" width="190" height="34" rx="17" fill="#e8f1fb" stroke="#2f6fb3"/>')
        out.append(f'<text x="{left + 14}" y="{y + 22}">{escape(name)}</text>')
    for model in plan.models:
        y = models[model.model.name]
        fill = "#eaf7ea" if model.local else "#fdeeee"
        out.append(f'<rect x="{right}" y="{y}" width="270" height="34" rx="4" fill="{fill}" stroke="#55606e"/>')
        out.append(f'<text x="{right + 10}" y="{y + 15}">{escape(model.model.name)}</text>')
        out.append(
            f'<text x="{right + 10}" y="{y + 29}" font-size="10" fill="#55606e">{escape(model.runtime_name)}</text>'
        )
    return "\n".join([*out, "</svg>", ""])


def _label(plan: Plan, deployment: Deployment) -> str:
    step = next(s for s in plan.widest(deployment.mode).steps if deployment in s)
    if len(step) == 1:
        return str(deployment.order)
    return f"{deployment.order}: {round(100 * deployment.weight / sum(d.weight for d in step))} %"


def _quoted(value: str) -> str:
    return value.replace('"', "#quot;")
