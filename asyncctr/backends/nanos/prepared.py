"""What is known of an image: where its log ends, and what its root tuple says."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from asyncctr.backends.nanos.addresses import CARD, CARD_KEYS
from asyncctr.backends.nanos.rootfacts import RootFacts
from asyncctr.core.validation import FrozenMap, fail
from asyncctr.oci.image_config import ImageConfig

if TYPE_CHECKING:
    from pathlib import Path

    from asyncctr.backends.nanos.store import StoredImage
    from asyncctr.backends.nanos.tfs.tail import Place, Tail
    from asyncctr.backends.nanos.tfs.values import Value

__all__ = ["Prepared", "PreparedImages"]

_REMEMBERED = 64


@attrs.frozen(kw_only=True)
class Prepared:
    """An image, ready for machines.

    Attributes:
        tail: of its root filesystem's log.
        config: what its root tuple has for a machine that says nothing else.
        card: entries of its network card, in the root tuple itself or, where there is one, in a tuple of the card's name.
        own_card: whether there is one.
        own_files: what it has of the files that a machine can have its own of.
        places: where those are put.
        mounts: volumes by label, and where they are mounted.
        directories: those that it has, on which volumes can be mounted.
        length: bytes of its root filesystem.
    """

    tail: Tail = attrs.field(repr=False)
    config: ImageConfig
    card: Mapping[str, Value]
    own_card: bool
    own_files: Mapping[str, bytes] = attrs.field(repr=False)
    places: Mapping[str, Place]
    mounts: Mapping[str, str]
    directories: frozenset[str] = attrs.field(repr=False)
    length: int

    @classmethod
    def of(cls, disk: Path) -> Prepared:
        """What a disk says. Blocks the thread: see :meth:`RootFacts.of`.

        Raises:
            InvalidConfigError: it is no disk of Nanos, or has no program.
        """
        known = RootFacts.of(disk)
        root = known.root
        program = root.get("program")
        if not isinstance(program, str) or not program:
            raise fail("image", "has no program: its root tuple names none")
        arguments = _texts(root.get("arguments"))
        workdir = root.get("cwd")
        return cls(
            tail=known.tail,
            config=ImageConfig(
                env=FrozenMap(_pairs(root.get("environment"))),
                entrypoint=(program,),
                # The first of them is the program's name for itself.
                cmd=arguments[1:],
                workdir=workdir if isinstance(workdir, str) and workdir else "/",
            ),
            card=FrozenMap(_card(root)),
            own_card=isinstance(root.get(CARD), Mapping),
            own_files=FrozenMap(known.own_files),
            places=FrozenMap(known.places),
            mounts=FrozenMap(_pairs(root.get("mounts"))),
            directories=known.directories,
            length=known.length,
        )


class PreparedImages:
    """The newest that were used, by digest."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Prepared] = OrderedDict()

    def of(self, image: StoredImage) -> Prepared:
        """An image's. Blocks the thread for one that was not used lately.

        Raises:
            InvalidConfigError: see :meth:`Prepared.of`.
        """
        found = self._known.get(image.digest)
        if found is None:
            found = self._known[image.digest] = Prepared.of(image.disk)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found


def _card(root: Mapping[str, Value]) -> dict[str, Value]:
    own = root.get(CARD)
    if isinstance(own, Mapping):
        return dict(own)
    return {key: root[key] for key in CARD_KEYS if key in root}


def _texts(value: Value | None) -> tuple[str, ...]:
    if isinstance(value, str | Mapping) or value is None or isinstance(value, int):
        return ()
    return tuple(item for item in value if isinstance(item, str))


def _pairs(value: Value | None) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {}
    return {key: item for key, item in value.items() if isinstance(item, str)}
