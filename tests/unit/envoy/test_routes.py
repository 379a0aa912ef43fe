"""Routes of the exported Envoy that no request of the behaviour cases tells apart."""

from typing import Any

from mitm_gateway.envoy.export_options import Listener, Options
from mitm_gateway.envoy.routes import virtual_hosts
from support.builders import make_rule, make_ruleset
from support.table import table


def routes(unmatched: str) -> list[dict[str, Any]]:
    rule = make_rule(match={"path": "/v1/**"}, upstream="https://gw.test")
    found: list[dict[str, Any]] = virtual_hosts(
        make_ruleset(rule, unmatched=unmatched), Listener("127.0.0.1", 8080), Options()
    )[0]["routes"]
    return found


def is_probe(route: dict[str, Any]) -> bool:
    is_head = {"name": ":method", "string_match": {"exact": "HEAD"}} in route["match"]["headers"]
    return is_head and route["direct_response"] == {"status": 200}


@table("unmatched", ["auto", "block"])
def test_a_probe_that_no_rule_takes_is_answered_before_the_refusal(unmatched: str) -> None:
    found = routes(unmatched)
    place = [is_probe(route) for route in found].index(True)
    assert all(route["direct_response"]["status"] == 404 for route in found[place + 1 :])
    assert found[place - 1]["name"] == "r"


def test_a_passing_listener_forwards_probes() -> None:
    assert not any(map(is_probe, routes("pass")))
