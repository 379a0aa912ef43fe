"""The client programs: every file is complete, and each command finds its own."""

import datetime
import re

from mitm_gateway.clients import catalogue, network
from mitm_gateway.clients.api_hosts import VENDOR_APIS
from mitm_gateway.clients.catalogue import Client
from support.table import table

CLIENTS = [catalogue.load(name) for name in catalogue.names()]
LISTED = [client for client in CLIENTS if client.name not in (catalogue.ANY, catalogue.SHELL)]


@table("client", CLIENTS)
def test_a_client_has_date_source_and_known_apis(client: Client) -> None:
    assert datetime.date.fromisoformat(client.date) <= datetime.date(2026, 12, 31)
    assert all(client.sources)
    assert set(client.apis) <= {api.name for api in VENDOR_APIS}
    assert client.apis or client.bypass, "a program that cannot be pointed anywhere says so"
    assert set(client.ca) - {"CODEX_CA_CERTIFICATE"} <= set(network.CA_VARIABLES)


@table("client", CLIENTS)
def test_a_client_never_gets_more_than_the_listener_and_placeholders(client: Client) -> None:
    for setup in client.apis.values():
        assert all("{url}" in value or name == "COPILOT_PROVIDER_TYPE" for name, value in setup.url.items())
        values = {*setup.key.values(), *setup.switch.values()}
        assert values <= {"placeholder", "1", "true"}


def test_no_two_clients_claim_a_program() -> None:
    programs = [program for client in CLIENTS for program in client.programs]
    assert len(programs) == len(set(programs))


@table("client", [each for each in LISTED if each.programs])
def test_the_command_that_proves_a_client_starts_it(client: Client) -> None:
    assert client.prove
    assert catalogue.of_command(re.split(r"\s+", client.prove))[0] == client


@table(
    ("name", "api"),
    [("aider", "anthropic"), ("aws", "bedrock"), ("claude-code", "anthropic"), ("cline", "anthropic"),
     ("codex", "openai"), ("copilot-cli", "openai"), ("gemini-cli", "gemini"), ("llm", "openai"),
     ("opencode", "anthropic"), ("pi", "anthropic"), ("qwen-code", "openai")],
)  # fmt: skip
def test_the_first_api_of_a_client_is_the_one_that_its_test_command_calls(name: str, api: str) -> None:
    assert catalogue.load(name).proved_api == api


@table(
    ("command", "name", "position"),
    [
        (["claude", "-p", "hi"], "claude-code", 1),
        (["/opt/bin/codex", "exec"], "codex", 1),
        (["codex.cmd"], "codex", 1),
        (["npx", "-y", "@openai/codex@latest", "exec"], "codex", 3),
        (["uvx", "aider"], "aider", 2),
        (["npx", "something"], "any", 1),
        (["python", "script.py"], "any", 1),
    ],
)
def test_a_command_finds_its_client(command: list[str], name: str, position: int) -> None:
    client, found = catalogue.of_command(command)
    assert (client.name, found) == (name, position)
