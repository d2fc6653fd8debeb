"""The gateway: the queue over HTTP. `routes` has a method per call, `models` says what they take and give,
`auth` knows who asks, `limits` how often, `errors` makes a sentence of what goes wrong, `openapi` writes the
contract, `request_log` tells of requests, `dashboard` is the live page, `server` runs it all.
"""

from flask import Flask

from dtq.gateway import dashboard, errors, limits, models, request_log
from dtq.gateway.auth import Auth
from dtq.gateway.routes import CALLS, Gateway
from dtq.queue.broker import Broker


def create_app(broker: Broker, *, keys_required: bool = False) -> Flask:
    """A queue's gateway as a WSGI application. `server.connect` makes the right kind of broker for it.

    Args:
        keys_required: whether only those with an API key are answered, also where DTQ_AUTH=auto.
    """
    app, gateway = Flask("dtq.gateway", static_folder=None), Gateway(broker)
    required = keys_required or broker.settings.auth == "required"
    auth = Auth(broker, {call.endpoint: call.scope for call in CALLS} | {"login": None}, required)
    app.config["MAX_CONTENT_LENGTH"] = models.BODY_LIMIT
    app.before_request(request_log.begin)
    app.after_request(request_log.tell)
    app.before_request(errors.refuse_other_sites)
    app.before_request(auth.identify)
    limits.install(app, broker, required)
    app.before_request(auth.enforce)
    app.register_error_handler(Exception, errors.answer_error)
    for call in CALLS:
        view = getattr(gateway, call.view.__name__)
        app.add_url_rule(call.path, call.endpoint, view, methods=[call.method])
    app.add_url_rule("/login", "login", auth.login, methods=["POST"], provide_automatic_options=False)
    app.add_url_rule("/logout", "logout", auth.logout, methods=["POST"])
    app.register_blueprint(dashboard.blueprint)
    return app
