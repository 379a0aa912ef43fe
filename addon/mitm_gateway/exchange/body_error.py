"""Reasons for which a request body cannot be read or edited."""

from enum import StrEnum


class Reason(StrEnum):
    """A fixed reason; the Envoy filter gives the same ones."""

    NOT_UTF8 = "the body is not UTF-8"
    NOT_JSON = "the body is not valid JSON"
    NOT_AN_OBJECT = "the body is not a JSON object"
    TOO_DEEP = "the body is nested too deep"
    TOO_MANY = "the body has too many members"
    TOO_MANY_DIGITS = "the body has a number with too many digits"
    SECOND_MODEL = 'the body has a second "model" key'
    MODEL_NOT_A_STRING = '"model" is not a string'
    NO_MODELS = "a part of the body that contains models is not an object or a list"
    LONG_MODEL = "the body names a model with too many characters"
    TOO_MANY_MODELS = "the body names too many models"
    OPEN_FORM = "the form does not end with its boundary"
    TOO_MANY_FIELDS = "the form has too many fields"
    LARGE_FIELDS = "the form has too much JSON in its fields"
    OVERGROWN = "the body has too many arrays, objects or other values"
    REPEATED_KEY = "the body has a repeated key that a rule edits"
    BETAS_NOT_STRINGS = '"anthropic_beta" is not an array of strings'


class BodyError(ValueError):
    """A body that cannot be read or edited; its text is a short reason for the client and quotes no content."""


class OvergrownError(BodyError):
    """A body that is small as text but would need too much memory as data."""
