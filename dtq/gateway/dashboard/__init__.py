"""The live page: a template, a style sheet and a script that uses the same calls as every client.

Its policy lets it load from this gateway alone, and run no script that stands in the page itself. A payload
that got into the page unescaped would stay text. All addresses are relative, so that it works where a proxy
puts a prefix before them, as JupyterLab's does.
"""

import secrets
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from flask import Blueprint, Response, abort, g, render_template, send_file

from dtq.gateway.models import NOSNIFF
from dtq.queue.task import Status

CHARTS = "plotly"  # the package whose JavaScript draws them
YEAR = 365 * 86400  # seconds
POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:",
        "connect-src 'self'", "base-uri 'none'", "frame-ancestors 'self'", "form-action 'none'",
    )
)  # fmt: skip
HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"} | NOSNIFF
LOGIN_POLICY = "; ".join(
    (
        "default-src 'none'", "style-src 'nonce-%s'", "img-src data:", "base-uri 'none'",
        "frame-ancestors 'self'", "form-action 'self'",
    )
)  # fmt: skip
LOGIN_HEADERS = NOSNIFF | {
    "WWW-Authenticate": "Bearer",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",  # with none at all, the form would be sent with Origin: null
}

blueprint = Blueprint(
    "dashboard", __name__, template_folder="templates", static_folder="static", static_url_path="/dashboard"
)


@blueprint.get("/dashboard")
def show_page() -> str:
    """The page. Where `g.read_only` is true, it offers nothing that the gateway would refuse."""
    charts, read_only = _charts(), g.get("read_only", False)
    version = charts.version if charts else None
    return render_template(
        "dashboard.html", charts=version, read_only=read_only, key=g.get("key"), statuses=list(Status)
    )


def login_page(sentence: str = "") -> Response:
    """401: the form that asks for a key, with a sentence on what was wrong with the last one."""
    nonce = secrets.token_urlsafe(16)
    headers = LOGIN_HEADERS | {"Content-Security-Policy": LOGIN_POLICY % nonce}
    return Response(render_template("login.html", sentence=sentence, nonce=nonce), 401, headers)


@blueprint.get("/dashboard/plotly.min.js")
def send_charts() -> Response:
    """Plotly's JavaScript, for a year: the page asks with the version in the address."""
    charts = _charts() or abort(404, f"The package {CHARTS} is not installed.")
    path = charts.locate_file("plotly/package_data/plotly.min.js")
    response = send_file(str(path), "text/javascript", max_age=YEAR)
    response.cache_control.immutable = True
    return response


@blueprint.after_request
def add_headers(response: Response) -> Response:
    """Adds the headers that an answer does not have: the login page has some of its own."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _charts() -> Distribution | None:
    try:
        return distribution(CHARTS)
    except PackageNotFoundError:
        return None
