"""A request's head with its secrets masked, as a flow keeps it, and the way back to the head that is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..text.redact import masked_fields, masked_target
from ..wire.request import Fields

Field = tuple[bytes, bytes]


class MaskedHead:
    """Target and fields of a request without their secrets. `reveal` masks nothing."""

    def __init__(self, target: str, fields: Fields, secrets: Iterable[str], *, reveal: bool = False) -> None:
        self._target, self._fields = target, fields
        self.target = target if reveal else masked_target(target, secrets)
        self.fields = fields if reveal else masked_fields(fields, secrets)

    def with_secrets(self, target: str, fields: Fields) -> tuple[str, Fields]:
        """Return a target and fields with the secrets put back; what another addon has edited stays as it is."""
        hidden: dict[Field, list[bytes]] = {}
        for shown, real in zip(self.fields, self._fields, strict=True):
            if shown != real:
                hidden.setdefault((shown[0].lower(), shown[1]), []).append(real[1])
        masks = {shown for _, shown in hidden}
        restored = [_restored(item, hidden) if item[1] in masks else item for item in fields]
        return self._target if target == self.target else target, tuple(restored)


def _restored(item: Field, hidden: Mapping[Field, list[bytes]]) -> Field:
    values = hidden.get((item[0].lower(), item[1]))
    return (item[0], values.pop(0)) if values else item
