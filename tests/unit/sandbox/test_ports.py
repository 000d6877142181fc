"""Free ports: nobody else gets one between the moment it is chosen and the start of the server it is for."""

import socket

import pytest

from sandbox.ports import HOST, free_port

pytestmark = pytest.mark.network


def test_a_server_that_names_the_port_can_listen_there():
    port = free_port(HOST)
    with socket.create_server((HOST, port)) as server, socket.create_connection((HOST, port)):
        server.accept()[0].close()


def test_nothing_answers_before_it_does():
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, free_port(HOST)))


def test_whoever_asks_for_any_port_does_not_get_it():
    port = free_port(HOST)
    with socket.socket() as another, pytest.raises(OSError, match="in use"):
        another.bind((HOST, port))
    assert len({free_port(HOST) for _ in range(100)}) == 100
