"""A real mitmdump or mitmweb, in a process with its own home."""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.constants import GATEWAY
from support.forked import Forked, ProgramName
from support.program import Program, unused_port

RESOLVE = Path(__file__).with_name("scripts") / "resolve_names.py"
WEB_PASSWORD = "password-of-the-test"
_LISTENING = re.compile(r"listening at (?:\S+, )?(?:http://)?\S*?:(\d+)[./]")


class Mitmdump(Program):
    """mitmdump with the gateway (or another `script`, or none for `None`), listening on a free loopback port.

    `rules` is the text of the rule file, `names` maps "host:port" or "host" to loopback ports, `trust` is the
    CA file for upstreams. The constructor returns when it listens; with `wait=False` at once, so it may end.
    """

    def __init__(
        self,
        folder: Path,
        *args: str,
        rules: str | None = None,
        modes: Sequence[str] = (),
        script: Path | None = GATEWAY,
        names: Mapping[str, int] | None = None,
        trust: Path | None = None,
        env: Mapping[str, str] | None = None,
        listen_host: str | None = "127.0.0.1",
        web: bool = False,
        wait: bool = True,
    ) -> None:
        self.home = folder
        self.confdir = folder / "confdir"
        self.rules_file = folder / "rules.yaml"
        self.web_port = unused_port() if web else None
        # Only one listener may have port 0.
        self._fixed_ports = [unused_port() for _ in modes] if len(modes) > 1 else []
        if self._fixed_ports:
            modes = [f"{mode}@{port}" for mode, port in zip(modes, self._fixed_ports, strict=True)]
        if rules is not None:
            self.write_rules(rules)
        _share_ca(self.confdir)
        command = ["--set", f"confdir={self.confdir}", "-p", "0"]
        command += ["--listen-host", listen_host] if listen_host else []
        command += [argument for mode in modes for argument in ("--mode", mode)]
        command += ["-s", str(RESOLVE)]
        command += ["-s", str(script)] if script else []
        command += ["--set", f"gateway_rules={self.rules_file}"] if rules is not None else []
        command += ["--set", f"ssl_verify_upstream_trusted_ca={trust}"] if trust else []
        if web:
            command += ["--no-web-open-browser", "--web-port", str(self.web_port)]
            command += ["--set", f"web_password={WEB_PASSWORD}"]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TEST_NAMES": json.dumps(names or {}),
            **(env or {}),
        }
        name: ProgramName = "mitmweb" if web else "mitmdump"
        output = folder / "output.txt"
        super().__init__(
            Forked.start(name, [*command, *args], cwd=folder, env=environment, output=output), output
        )
        if wait:
            self._wait_until_it_listens(self._is_up)

    def write_rules(self, text: str) -> None:
        """Replace the rules file atomically, as an editor does; only its owner may write it."""
        draft = self.rules_file.with_suffix(".new")
        draft.write_text(text, encoding="utf-8")
        draft.chmod(0o600)
        draft.replace(self.rules_file)

    @property
    def ports(self) -> list[int]:
        """Ports of the listeners in the order of the modes; after a second bind, the new port."""
        return self._fixed_ports or self._logged_ports()[-1:]

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return self.ports[0]

    @property
    def url(self) -> str:
        """The first listener: a base URL in reverse mode, a proxy's address otherwise."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def web_url(self) -> str:
        """mitmweb's page, with its password where the version has one."""
        return f"http://127.0.0.1:{self.web_port}/?token={WEB_PASSWORD}"

    @property
    def ca_cert(self) -> Path:
        """Certificate that a client must trust in intercept mode."""
        return self.confdir / "mitmproxy-ca-cert.pem"

    def _logged_ports(self) -> list[int]:
        lines = [line for line in self.output().splitlines() if "Web server" not in line]
        return [int(match[1]) for line in lines if (match := _LISTENING.search(line))]

    def _is_up(self) -> bool:
        output = self.output()
        listens = len(self._logged_ports()) >= (len(self._fixed_ports) or 1)
        return (
            listens and "harness: mitmproxy is up" in output and (not self.web_port or "Web server" in output)
        )


_confdirs: list[Path] = []


def _share_ca(confdir: Path) -> None:
    """Give a folder the CA that an earlier mitmproxy has made."""
    made = next((folder for folder in _confdirs if (folder / "mitmproxy-dhparam.pem").exists()), None)
    if made is None:
        _confdirs.append(confdir)
    elif not confdir.exists():
        confdir.mkdir(0o700)
        for file in made.glob("mitmproxy-*"):
            shutil.copy(file, confdir)
