"""A request's head with its secrets masked, as a flow keeps it, and the way back to the head that is sent."""

from collections.abc import Iterable

from ..text.redact import masked_fields, masked_target
from ..wire.addresses import Upstream
from ..wire.request import Fields


class MaskedHead:
    """The head to send, its secrets masked unless `reveal` is set; without a destination, the client's own head."""

    def __init__(
        self,
        destination: Upstream | None,
        target: str,
        fields: Fields,
        secrets: Iterable[str],
        *,
        reveal: bool = False,
    ) -> None:
        self.destination = destination
        self._target = target
        self.target = target if reveal else masked_target(target, secrets)
        self.fields = fields if reveal else masked_fields(fields, secrets)
        pairs = zip(self.fields, fields, strict=True)
        self._hidden = [(shown, real[1]) for shown, real in pairs if shown != real]

    def with_secrets(self, target: str, fields: Fields) -> tuple[str, Fields]:
        """Return a target and fields with the secrets put back; what another addon has edited stays as it is."""
        hidden: dict[tuple[bytes, bytes], list[bytes]] = {}
        for (name, mask), value in self._hidden:
            hidden.setdefault((name.lower(), mask), []).append(value)
        masks = {mask for _, mask in hidden}

        def real(item: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
            name, mask = item
            values = hidden.get((name.lower(), mask))
            return (name, values.pop(0)) if values else item

        restored = tuple([real(item) if item[1] in masks else item for item in fields])
        return self._target if target == self.target else target, restored
