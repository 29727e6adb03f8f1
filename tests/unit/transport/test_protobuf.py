"""Messages of a schema of one's own."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from hypothesis import given
from hypothesis import strategies as st

from asyncctr.backends.containerd.proto import containers_pb2, tasks_pb2
from asyncctr.backends.containerd.proto.schema import SCHEMA
from asyncctr.transport.protobuf import Schema


def schema(value: int) -> Schema:
    file = descriptor_pb2.FileDescriptorProto(name="colours.proto", package="test", syntax="proto3")
    message = file.message_type.add(name="Paint")
    message.field.add(name="colour", number=1, type=14, label=1, type_name=".test.Colour")
    enum = file.enum_type.add(name="Colour")
    enum.value.add(name="NONE", number=0)
    enum.value.add(name="RED", number=value)
    return Schema(descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString())


def test_a_file_has_its_messages_and_enums() -> None:
    names = schema(3).names("colours.proto")
    assert (names["NONE"], names["RED"], names["Colour"].Name(3)) == (0, 3, "RED")
    paint = names["Paint"](colour=names["RED"])
    assert names["Paint"].FromString(paint.SerializeToString()) == paint


def test_schemas_do_not_meet() -> None:
    # The same names with other numbers, as another package's may have them, and nobody else's pool has either.
    assert schema(3).names("colours.proto")["RED"] == 3
    assert schema(4).names("colours.proto")["RED"] == 4
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileByName("colours.proto")


def test_a_message_that_there_is_not() -> None:
    with pytest.raises(KeyError):
        SCHEMA.message("containerd.services.containers.v1.Nothing")


@given(st.text(), st.dictionaries(st.text(), st.text(), max_size=5), st.binary(max_size=100))
def test_containers_come_back_as_they_went(name: str, labels: dict[str, str], spec: bytes) -> None:
    container = containers_pb2.Container(id=name, labels=labels)
    container.spec.value = spec
    container.extensions["x"].value = spec
    back = containers_pb2.Container.FromString(container.SerializeToString())
    assert (back.id, dict(back.labels), back.spec.value, back.extensions["x"].value) == (name, labels, spec, spec)


def test_states_have_containerds_numbers() -> None:
    # api/types/task/task.proto
    states = (tasks_pb2.UNKNOWN, tasks_pb2.CREATED, tasks_pb2.RUNNING, tasks_pb2.STOPPED, tasks_pb2.PAUSED)
    assert states == (0, 1, 2, 3, 4)
