"""Where does a developer read what the inference API takes? A page at `/docs`, its document beside it.

The page is Swagger UI as BentoML ships it, under a policy that lets it load nothing from elsewhere. All of it
is read once, when a gateway starts, and holds nothing of the fleet.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

import orjson

from routing.http.docs import bento_schema
from routing.http.docs.openapi import document
from routing.site import POLICY, Asset

DOCS_PATH = "/docs"
OPENAPI_PATH = "/openapi.json"
BENTOML_PATH = "/docs.json"  # where BentoML's own services have it
SCHEMA_PATH = "/schema.json"  # what BentoML's clients read first
SWAGGER_UI = ("swagger-ui.css", "swagger-ui-bundle.js")
_POLICY = POLICY.replace(b"img-src 'self'", b"img-src 'self' data:")  # the icons in its style sheet

# Once a key is given, the document is read anew with it: its examples then name the caller's own models.
_START = f"""\
async function readOwn(system) {{
  const given = Object.values(system.authSelectors.authorized().toJS());
  const key = given.map((each) => each.value).find((value) => typeof value === "string" && value);
  const headers = key ? {{ authorization: `Bearer ${{key}}` }} : {{}};
  const answer = await fetch("{OPENAPI_PATH}", {{ headers }});
  if (answer.ok) system.specActions.updateSpec(await answer.text());
}}
const then = (original, system) => (payload) => {{
  original(payload);
  readOwn(system);
}};
SwaggerUIBundle({{
  url: "{OPENAPI_PATH}", dom_id: "#docs", deepLinking: true, validatorUrl: null, defaultModelsExpandDepth: 0,
  plugins: [{{ statePlugins: {{ auth: {{ wrapActions: {{ authorize: then, logout: then }} }} }} }}],
}});
"""
_STYLE = "body { margin: 0; } noscript p { margin: 2em; font-family: sans-serif; }\n"
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tenantry: the inference API</title>
<link rel="icon" href="data:,">
{styles}
</head>
<body>
<main id="docs"></main>
<noscript><p>This page needs JavaScript; what it shows is <a href="{openapi}">{openapi}</a>.</p></noscript>
{scripts}
</body>
</html>
"""


def shipped() -> Path:
    """Return the folder in which BentoML ships Swagger UI. Raises `FileNotFoundError`."""
    bentoml = importlib.util.find_spec("bentoml")  # this imports nothing
    if bentoml is None or bentoml.origin is None:
        raise FileNotFoundError("BentoML, whose Swagger UI shows the documentation, is not installed")
    return Path(bentoml.origin).parent / "_internal" / "server" / "static_content"


@cache
def pages(folder: Path | None = None) -> dict[str, Asset]:
    """Build everything by path; `/` leads to the page. Raises `OSError` where BentoML ships no Swagger UI."""
    folder = folder or shipped()
    files = {name: (folder / name).read_bytes() for name in SWAGGER_UI}
    files |= {"docs.css": _STYLE.encode(), "start.js": _START.encode()}
    paths = {name: _path(name, body) for name, body in files.items()}
    page = _PAGE.format(
        openapi=OPENAPI_PATH,
        styles="\n".join(
            f'<link rel="stylesheet" href="{p}">' for n, p in paths.items() if n.endswith(".css")
        ),
        scripts="\n".join(f'<script src="{p}"></script>' for n, p in paths.items() if n.endswith(".js")),
    )
    described = Asset.of("openapi.json", orjson.dumps(document()), kept=False)
    loaded = {paths[name]: Asset.of(name, body, kept=True, policy=_POLICY) for name, body in files.items()}
    return loaded | {
        "/": Asset.redirect(DOCS_PATH),
        DOCS_PATH: Asset.of("docs.html", page.encode(), kept=False, policy=_POLICY),
        OPENAPI_PATH: described,
        BENTOML_PATH: described,
        SCHEMA_PATH: Asset.of("schema.json", orjson.dumps(bento_schema.document()), kept=False),
    }


def _path(name: str, body: bytes) -> str:
    """Return a path that changes with the content."""
    stem, _, suffix = name.rpartition(".")
    return f"{DOCS_PATH}/{stem}-{hashlib.sha256(body).hexdigest()[:8]}.{suffix}"
