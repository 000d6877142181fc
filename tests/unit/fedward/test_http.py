"""The HTTP endpoint serves its pages and nothing else. Sockets on loopback only."""

import http.client
import itertools

import pytest

from fedward.errors import ConfigError
from fedward.http import HttpServer, Page
from fedward.settings import HttpSettings

pytestmark = pytest.mark.network

FREE = HttpSettings(port=0)
COUNT = itertools.count()
PAGES = {
    "/healthz": lambda: Page("ok\n"),
    "/readyz": lambda: Page("not yet\n", status=503),
    "/v1/state": lambda: Page('{"name": "Zürich"}', content_type="application/json"),
    "/count": lambda: Page(str(next(COUNT))),
}


def ask(server: HttpServer, path: str, method: str = "GET") -> tuple[int, str | None, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port or 0, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read().decode()
    finally:
        connection.close()


def test_a_page_answers_with_its_body_type_and_status():
    with HttpServer(FREE, PAGES) as server:
        assert ask(server, "/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
        assert ask(server, "/readyz") == (503, "text/plain; charset=utf-8", "not yet\n")
        assert ask(server, "/v1/state") == (200, "application/json", '{"name": "Zürich"}')


def test_a_page_is_computed_each_time_it_is_asked_for():
    with HttpServer(FREE, PAGES) as server:
        first, second = ask(server, "/count"), ask(server, "/count")
    assert int(second[2]) == int(first[2]) + 1


def test_a_query_does_not_change_the_page():
    with HttpServer(FREE, PAGES) as server:
        assert ask(server, "/healthz?verbose=1")[0] == 200


@pytest.mark.parametrize("path", ["/", "/healthz/", "/../etc/passwd", "/HEALTHZ"])
def test_another_path_is_not_found_and_the_pages_are_listed(path):
    with HttpServer(FREE, PAGES) as server:
        status, _, body = ask(server, path)
    assert status == 404
    assert body == "not found; pages: /count /healthz /readyz /v1/state\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_the_pages_are_read_only(method):
    with HttpServer(FREE, PAGES) as server:
        assert ask(server, "/healthz", method)[0] == 501


def test_a_port_in_use_is_told_before_anything_starts():
    with (
        HttpServer(FREE, PAGES) as first,
        pytest.raises(ConfigError, match=rf"http: can't listen on 127\.0\.0\.1:{first.port}"),
    ):
        HttpServer(HttpSettings(port=first.port), PAGES)


def test_an_address_of_another_machine_is_told():
    with pytest.raises(ConfigError, match=r"can't listen on 203\.0\.113\.1:0"):
        HttpServer(HttpSettings(host="203.0.113.1", port=0), PAGES)


def test_without_a_port_nothing_is_served():
    with HttpServer(HttpSettings(), PAGES) as server:
        assert server.port is None


def test_the_port_is_free_again_after_the_end():
    with HttpServer(FREE, PAGES) as server:
        port = server.port
    with HttpServer(HttpSettings(port=port), PAGES) as again:
        assert ask(again, "/healthz")[0] == 200
