"""attrs classes as the site shows them: with the signature that attrs makes from their fields."""

# ruff: noqa: INP001 - a plug-in, loaded by its path

from __future__ import annotations

from typing import Any

import griffe


def _keywords(value: object) -> dict[str, griffe.Expr | str]:
    if not isinstance(value, griffe.ExprCall):
        return {}
    return {argument.name: argument.value for argument in value.arguments if isinstance(argument, griffe.ExprKeyword)}


def _decorator(cls: griffe.Class) -> str:
    return next((text for entry in cls.decorators if (text := str(entry.value)).startswith("attrs.")), "")


def _parameter(field: griffe.Attribute, *, keyword_only: bool) -> griffe.Parameter:
    keywords = _keywords(field.value)
    default: griffe.Expr | str | None = keywords.get("default")
    if "factory" in keywords:
        default = f"{keywords['factory']}()"
    elif str(field.value) == "path_field()":
        default = '""'
    elif field.value is not None and not isinstance(field.value, griffe.ExprCall):
        default = field.value
    positional = not keyword_only or str(keywords.get("kw_only")) == "False"
    kind = griffe.ParameterKind.positional_or_keyword if positional else griffe.ParameterKind.keyword_only
    return griffe.Parameter(field.name, annotation=field.annotation, kind=kind, default=default)


def _fields(cls: griffe.Class) -> list[griffe.Attribute]:
    inherited = [
        field
        for base in cls.bases
        if isinstance(parent := cls.parent and cls.parent.members.get(str(base)), griffe.Class)
        for field in _fields(parent)
    ]
    own = [
        member
        for member in cls.members.values()
        if isinstance(member, griffe.Attribute)
        and member.annotation is not None
        and "property" not in member.labels
        # ClassVar is read away from the annotation; what is left of it is the label.
        and "instance-attribute" in member.labels
    ]
    return inherited + own


class Attrs(griffe.Extension):
    """Gives attrs classes the ``__init__`` that they have at run time."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        decorator = _decorator(cls)
        fields = _fields(cls)
        if not decorator or not fields or "__init__" in cls.members:
            return
        own = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
        keyword_only = "kw_only=True" in decorator
        parameters = griffe.Parameters(own, *(_parameter(field, keyword_only=keyword_only) for field in fields))
        cls.set_member("__init__", griffe.Function("__init__", parameters=parameters, returns="None"))
