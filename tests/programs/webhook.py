"""Serves a cohort webhook on a free port, which it prints; the argument names the store."""

import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

from stores import open_store

from flagsync.cohorts import CohortWebhook


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


webhook = CohortWebhook(open_store(sys.argv[1]), credentials=[("mixpanel", "secret")])
with make_server("127.0.0.1", 0, webhook.wsgi, handler_class=Quiet) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
