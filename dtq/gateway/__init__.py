"""The gateway: the queue over HTTP.

A request passes these modules: `origin` refuses pages of other sites, `auth` finds out who sends it, `limits`
counts it, and a method in `routes` answers it. `errors` turns exceptions into answers, `request_log` logs the
request. `calls` has the table of all calls, `models` what they take and give, `openapi` their contract.
`access` keeps the API keys and decides who needs one. `dashboard` is the live page. `server` runs the gateway
under waitress, with the help of `listening`; `wsgi` is for gunicorn.
"""

from flask import Flask

from dtq.gateway import dashboard, errors, limits, models, openapi, origin, request_log
from dtq.gateway.access import KeyPolicy
from dtq.gateway.auth import Auth
from dtq.gateway.calls import CALLS
from dtq.gateway.routes import Gateway
from dtq.queue.broker import Broker


def create_app(broker: Broker, policy: KeyPolicy | None = None) -> Flask:
    """A queue's gateway as a WSGI application. `server.connect` makes the right kind of broker for it.

    Args:
        broker: of the queue.
        policy: who needs an API key. If None, DTQ_AUTH decides as on an address of this machine alone.
    """
    policy = policy or KeyPolicy.decide(broker.settings.auth, reachable=False)
    app = Flask("dtq.gateway", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = models.BODY_LIMIT
    auth = Auth(broker, {call.endpoint: call.scope for call in CALLS} | {"login": None}, policy)
    app.before_request(request_log.start_clock)
    app.after_request(request_log.log_request)
    app.before_request(origin.refuse_other_sites)
    app.before_request(auth.identify)
    limits.install(app, broker, policy)
    app.before_request(auth.enforce)
    app.register_error_handler(Exception, errors.answer_error)
    _add_calls(app, Gateway(broker, openapi.document(CALLS)))
    app.add_url_rule("/login", "login", auth.login, methods=["POST"], provide_automatic_options=False)
    app.add_url_rule("/logout", "logout", auth.logout, methods=["POST"])
    app.register_blueprint(dashboard.blueprint)
    return app


def _add_calls(app: Flask, gateway: Gateway) -> None:
    for call in CALLS:
        view = getattr(gateway, call.view.__name__)
        app.add_url_rule(call.path, call.endpoint, view, methods=[call.method])
