"""The gateway: the queue over HTTP. `routes` has a method per call, `models` says what they take and give,
`errors` makes a sentence of what goes wrong, `openapi` writes the contract, `dashboard` is the live page,
`server` runs it all.
"""

from flask import Flask

from dtq.broker import Broker
from dtq.gateway import dashboard, errors, models
from dtq.gateway.routes import CALLS, Gateway


def create_app(broker: Broker) -> Flask:
    """A queue's gateway as a WSGI application. `server.connect` makes the right kind of broker for it."""
    app, gateway = Flask("dtq.gateway", static_folder=None), Gateway(broker)
    app.config["MAX_CONTENT_LENGTH"] = models.BODY_LIMIT
    app.before_request(errors.refuse_other_sites)
    app.register_error_handler(Exception, errors.answer_error)
    for call in CALLS:
        view = getattr(gateway, call.view.__name__)
        app.add_url_rule(call.path, f"{call.method} {call.path}", view, methods=[call.method])
    app.register_blueprint(dashboard.blueprint)
    return app
