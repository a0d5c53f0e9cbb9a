"""What people write first: pull, read every file, render everything, write the file. ``python -m bench.plain DIR OUT``.

No checks, no quoting, no plan, no preflight. ``--loader c`` takes PyYAML's C loader instead of ``yaml.safe_load``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jinja2
import yaml  # type: ignore[import-untyped]

TEMPLATE = """\
http:
  routers:
{%- for route in routes %}
    {{ route.team }}_{{ route.metadata.name }}:
      entryPoints: [web]
      rule: "Host(`{{ route.spec.hostnames[0] }}`) && PathPrefix(`{{ route.spec.paths[0].prefix }}`)"
      service: {{ route.team }}_{{ route.metadata.name }}
      middlewares: [{% for _ in route.spec.middlewares %}{{ route.team }}_{{ route.metadata.name }}-{{ loop.index0 }}
        {%- if not loop.last %}, {% endif %}{% endfor %}]
{%- endfor %}
  services:
{%- for route in routes %}
    {{ route.team }}_{{ route.metadata.name }}:
      loadBalancer:
        servers:
{%- for backend in route.spec.backends %}
          - url: http://{{ agents[backend.agent].spec.address }}:{{ backend.port }}
            weight: {{ backend.weight }}
{%- endfor %}
        healthCheck: {path: {{ route.spec.healthCheck.path }}, interval: {{ route.spec.healthCheck.interval }}}
{%- endfor %}
  middlewares:
{%- for route in routes %}
{%- for middleware in route.spec.middlewares %}
    {{ route.team }}_{{ route.metadata.name }}-{{ loop.index0 }}: {{ middleware | tojson }}
{%- endfor %}
{%- endfor %}
"""


def render_everything(tree: Path, out: Path, loader: Any = yaml.SafeLoader) -> None:  # noqa: ANN401 - a class
    agents: dict[str, Any] = {}
    routes: list[Any] = []
    for path in sorted(tree.rglob("*.yaml")):
        document = yaml.load(path.read_text(encoding="utf-8"), loader)
        if document["kind"] == "Agent":
            agents[document["metadata"]["name"]] = document
        elif document["kind"] == "Route":
            routes.append({"team": path.parent.name, **document})
    text = jinja2.Template(TEMPLATE).render(agents=agents, routes=routes)
    temporary = out.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(out)


if __name__ == "__main__":
    render_everything(Path(sys.argv[1]), Path(sys.argv[2]))
