"""The edits of a rule: headers, query, beta names, body fields and model names."""

import json
from functools import cached_property

from pydantic import Field

from .field_paths import FieldPath
from .fields import (
    BetaName,
    BodyPath,
    BodyValue,
    EditedHeaderName,
    HeaderGlob,
    HeaderValue,
    KeptGlobs,
    Model,
    ModelPattern,
    ModelTarget,
    OneOrMany,
    QueryGlob,
    QueryName,
    TextGlob,
)
from .model_map import ModelMap


class HeaderEdits(Model):
    """Edits of request headers, in the order remove, set, add."""

    set: dict[EditedHeaderName, HeaderValue] = Field(default_factory=dict)
    """Headers to set to exactly this value; `${credential:NAME}` inserts a secret."""
    add: dict[EditedHeaderName, HeaderValue] = Field(default_factory=dict)
    """Headers to add to those that the client sent."""
    remove: OneOrMany[HeaderGlob] = ()
    """Names or globs of headers to remove."""


class QueryEdits(Model):
    """Edits of the query, in the order remove, set; every other parameter stays byte for byte."""

    set: dict[QueryName, HeaderValue] = Field(default_factory=dict)
    """Parameters to set to exactly this value; `${credential:NAME}` inserts a secret."""
    remove: OneOrMany[QueryGlob] = ()
    """Names or globs of parameters to remove."""


class Beta(Model):
    """Edits of the beta names in the `anthropic-beta` header and in a body's `anthropic_beta` array.

    Converse has the array within `additionalModelRequestFields`.
    """

    keep: KeptGlobs | None = None
    """Keep only names that match one of these globs; an empty list keeps none."""
    drop: OneOrMany[TextGlob] = ()
    """Drop names that match one of these globs."""
    rename: dict[BetaName, BetaName] = Field(default_factory=dict)
    """Old name to new name, after keep and drop."""
    add: OneOrMany[BetaName] = ()
    """Names that are always sent."""

    def edited(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names to send for the client's, in order, without empty ones and duplicates."""
        kept = [name for name in names if name.strip() and self._keeps(name)]
        renamed = [self.rename.get(name, name) for name in kept]
        return tuple(dict.fromkeys([*renamed, *self.add]))

    def _keeps(self, name: str) -> bool:
        if self.keep is not None and not any(glob.covers(name) for glob in self.keep):
            return False
        return not any(glob.covers(name) for glob in self.drop)


class BodyEdits(Model):
    """Edits of a JSON request body."""

    remove: OneOrMany[BodyPath] = ()
    """Fields to remove, such as `context_management` or `tools[*].defer_loading`."""
    set: dict[BodyPath, BodyValue] = Field(default_factory=dict)
    """Fields to set to this value."""

    @cached_property
    def described(self) -> tuple[str, ...]:
        """The edits in words."""
        return (*(f"remove {path}" for path in self.remove), *(f"set {path}" for path in self.set))

    @cached_property
    def set_texts(self) -> tuple[tuple[FieldPath, str], ...]:
        """The fields of `set` with their values as JSON text."""
        return tuple((path, json.dumps(value, ensure_ascii=False)) for path, value in self.set.items())


class Models(Model):
    """Model names: the client's name to the upstream's, and back in the response."""

    map: dict[ModelPattern, ModelTarget] = Field(default_factory=dict)
    """Name or glob to name: an exact name wins, then file order. `{1}` in a target is the text of the glob's
    first star. A name that is itself a target stays; a name with `[1m]` is also tried without it. A name without
    an entry is sent as it is, and the flow's comment says so. The models of fallbacks and tools in a request, and
    those in the fields of a form, are mapped as well."""
    default: ModelTarget | None = None
    """Name for all models that `map` does not cover."""
    restore: bool = True
    """Show the name that the client asked for in responses; of several models, that of the one that answers.
    Responses about an earlier request, such as the results of a batch, show it if exactly one of the client's
    names is sent as the upstream's."""

    @cached_property
    def names(self) -> ModelMap:
        """The map and its default."""
        return ModelMap(self.map, self.default)

    def sent_for(self, name: str) -> str:
        """Return the name that the upstream gets for the client's."""
        return self.names.sent_for(name)
