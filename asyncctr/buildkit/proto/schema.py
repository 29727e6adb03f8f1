"""The messages of the files here; generated, see ``nox -s protos``."""

from asyncctr.transport.protobuf import Schema

SCHEMA = Schema(
    (
        b'\n\xff\x01\n\x1fgoogle/protobuf/timestamp.proto\x12\x0fgoogle.protobuf";\n\tTimesta'
        b"mp\x12\x18\n\x07seconds\x18\x01 \x01(\x03R\x07seconds\x12\x14\n\x05nanos\x18\x02 \x01(\x05R\x05nanosB\x85\x01\n\x13com.googl"
        b"e.protobufB\x0eTimestampProtoP\x01Z2google.golang.org/protobuf/types/k"
        b"nown/timestamppb\xf8\x01\x01\xa2\x02\x03GPB\xaa\x02\x1eGoogle.Protobuf.WellKnownTypesb\x06prot"
        b'o3\n\x80\x04\n$asyncctr/buildkit/proto/fsutil.proto\x12\x0cfsutil.types"\xd5\x01\n\x04St'
        b"at\x12\x12\n\x04path\x18\x01 \x01(\x0cR\x04path\x12\x12\n\x04mode\x18\x02 \x01(\rR\x04mode\x12\x10\n\x03uid\x18\x03 \x01(\rR\x03uid\x12\x10\n\x03"
        b"gid\x18\x04 \x01(\rR\x03gid\x12\x12\n\x04size\x18\x05 \x01(\x03R\x04size\x12\x19\n\x08mod_time\x18\x06 \x01(\x03R\x07modTime\x12\x1a\n"
        b"\x08linkname\x18\x07 \x01(\x0cR\x08linkname\x12\x1a\n\x08devmajor\x18\x08 \x01(\x03R\x08devmajor\x12\x1a\n\x08devmino"
        b'r\x18\t \x01(\x03R\x08devminor"\xe9\x01\n\x06Packet\x123\n\x04type\x18\x01 \x01(\x0e2\x1f.fsutil.types.Packet'
        b".PacketTypeR\x04type\x12&\n\x04stat\x18\x02 \x01(\x0b2\x12.fsutil.types.StatR\x04stat\x12\x0e\n\x02id\x18"
        b'\x03 \x01(\rR\x02id\x12\x12\n\x04data\x18\x04 \x01(\x0cR\x04data"^\n\nPacketType\x12\x0f\n\x0bPACKET_STAT\x10\x00\x12\x0e\n\n'
        b"PACKET_REQ\x10\x01\x12\x0f\n\x0bPACKET_DATA\x10\x02\x12\x0e\n\nPACKET_FIN\x10\x03\x12\x0e\n\nPACKET_ERR\x10\x04b\x06p"
        b"roto3\n\xb0\x05\n%asyncctr/buildkit/proto/session.proto\x12\x10moby.filesync.v"
        b'1\x1a$asyncctr/buildkit/proto/fsutil.proto""\n\x0cBytesMessage\x12\x12\n\x04data\x18'
        b'\x01 \x01(\x0cR\x04data"(\n\x12CredentialsRequest\x12\x12\n\x04host\x18\x01 \x01(\tR\x04host"I\n\x13Credent'
        b"ialsResponse\x12\x1a\n\x08username\x18\x01 \x01(\tR\x08username\x12\x16\n\x06secret\x18\x02 \x01(\tR\x06secret"
        b'"\x1a\n\x18GetTokenAuthorityRequest"\x1b\n\x19GetTokenAuthorityResponse2F\n\x08Fil'
        b"eSync\x12:\n\x08DiffCopy\x12\x14.fsutil.types.Packet\x1a\x14.fsutil.types.Packet(\x010"
        b"\x012Z\n\x08FileSend\x12N\n\x08DiffCopy\x12\x1e.moby.filesync.v1.BytesMessage\x1a\x1e.moby"
        b".filesync.v1.BytesMessage(\x010\x012\xd0\x01\n\x04Auth\x12Z\n\x0bCredentials\x12$.moby.fil"
        b"esync.v1.CredentialsRequest\x1a%.moby.filesync.v1.CredentialsRespon"
        b"se\x12l\n\x11GetTokenAuthority\x12*.moby.filesync.v1.GetTokenAuthorityRequ"
        b"est\x1a+.moby.filesync.v1.GetTokenAuthorityResponseb\x06proto3\n\xa0\x13\n%asy"
        b"ncctr/buildkit/proto/control.proto\x12\x10moby.buildkit.v1\x1a\x1fgoogle/pro"
        b'tobuf/timestamp.proto\x1a%asyncctr/buildkit/proto/session.proto"\xfc\x04\n'
        b"\x0cSolveRequest\x12\x10\n\x03ref\x18\x01 \x01(\tR\x03ref\x12/\n\x13exporter_deprecated\x18\x03 \x01(\tR\x12ex"
        b"porterDeprecated\x12w\n\x19exporter_attrs_deprecated\x18\x04 \x03(\x0b2;.moby.build"
        b"kit.v1.SolveRequest.ExporterAttrsDeprecatedEntryR\x17exporterAttrsD"
        b"eprecated\x12\x18\n\x07session\x18\x05 \x01(\tR\x07session\x12\x1a\n\x08frontend\x18\x06 \x01(\tR\x08frontend\x12"
        b"X\n\x0efrontend_attrs\x18\x07 \x03(\x0b21.moby.buildkit.v1.SolveRequest.Frontend"
        b"AttrsEntryR\rfrontendAttrs\x124\n\x05cache\x18\x08 \x01(\x0b2\x1e.moby.buildkit.v1.Cach"
        b'eOptionsR\x05cache\x12"\n\x0centitlements\x18\t \x03(\tR\x0centitlements\x128\n\texporters'
        b"\x18\r \x03(\x0b2\x1a.moby.buildkit.v1.ExporterR\texporters\x1aJ\n\x1cExporterAttrsDe"
        b"precatedEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01\x1a@\n\x12Fro"
        b'ntendAttrsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01"\x8c\x01\n\x0c'
        b"CacheOptions\x12=\n\x07exports\x18\x04 \x03(\x0b2#.moby.buildkit.v1.CacheOptionsEnt"
        b"ryR\x07exports\x12=\n\x07imports\x18\x05 \x03(\x0b2#.moby.buildkit.v1.CacheOptionsEntr"
        b'yR\x07imports"\xa7\x01\n\x11CacheOptionsEntry\x12\x12\n\x04type\x18\x01 \x01(\tR\x04type\x12D\n\x05attrs\x18\x02 '
        b"\x03(\x0b2..moby.buildkit.v1.CacheOptionsEntry.AttrsEntryR\x05attrs\x1a8\n\nAt"
        b'trsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01"\x95\x01\n\x08Exporte'
        b"r\x12\x12\n\x04type\x18\x01 \x01(\tR\x04type\x12;\n\x05attrs\x18\x02 \x03(\x0b2%.moby.buildkit.v1.Exporter"
        b".AttrsEntryR\x05attrs\x1a8\n\nAttrsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01("
        b'\tR\x05value:\x028\x01"\xb8\x01\n\rSolveResponse\x12b\n\x11exporter_response\x18\x01 \x03(\x0b25.moby'
        b".buildkit.v1.SolveResponse.ExporterResponseEntryR\x10exporterRespon"
        b"se\x1aC\n\x15ExporterResponseEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05va"
        b'lue:\x028\x01"!\n\rStatusRequest\x12\x10\n\x03ref\x18\x01 \x01(\tR\x03ref"\xf0\x01\n\x0eStatusResponse\x124\n'
        b"\x08vertexes\x18\x01 \x03(\x0b2\x18.moby.buildkit.v1.VertexR\x08vertexes\x12:\n\x08statuses\x18"
        b"\x02 \x03(\x0b2\x1e.moby.buildkit.v1.VertexStatusR\x08statuses\x12/\n\x04logs\x18\x03 \x03(\x0b2\x1b."
        b"moby.buildkit.v1.VertexLogR\x04logs\x12;\n\x08warnings\x18\x04 \x03(\x0b2\x1f.moby.buildk"
        b'it.v1.VertexWarningR\x08warnings"\xd2\x01\n\x06Vertex\x12\x16\n\x06digest\x18\x01 \x01(\tR\x06digest'
        b"\x12\x12\n\x04name\x18\x03 \x01(\tR\x04name\x12\x16\n\x06cached\x18\x04 \x01(\x08R\x06cached\x124\n\x07started\x18\x05 \x01(\x0b2\x1a."
        b"google.protobuf.TimestampR\x07started\x128\n\tcompleted\x18\x06 \x01(\x0b2\x1a.google.p"
        b'rotobuf.TimestampR\tcompleted\x12\x14\n\x05error\x18\x07 \x01(\tR\x05error"\xb4\x01\n\x0cVertexSta'
        b"tus\x12\x0e\n\x02id\x18\x01 \x01(\tR\x02id\x12\x16\n\x06vertex\x18\x02 \x01(\tR\x06vertex\x12\x12\n\x04name\x18\x03 \x01(\tR\x04name\x12"
        b"\x18\n\x07current\x18\x04 \x01(\x03R\x07current\x12\x14\n\x05total\x18\x05 \x01(\x03R\x05total\x128\n\tcompleted\x18\x08 \x01"
        b'(\x0b2\x1a.google.protobuf.TimestampR\tcompleted"5\n\tVertexLog\x12\x16\n\x06vertex'
        b'\x18\x01 \x01(\tR\x06vertex\x12\x10\n\x03msg\x18\x04 \x01(\x0cR\x03msg"=\n\rVertexWarning\x12\x16\n\x06vertex\x18\x01 \x01('
        b"\tR\x06vertex\x12\x14\n\x05short\x18\x03 \x01(\x0cR\x05short2\xf1\x01\n\x07Control\x12H\n\x05Solve\x12\x1e.moby.buil"
        b"dkit.v1.SolveRequest\x1a\x1f.moby.buildkit.v1.SolveResponse\x12M\n\x06Status\x12"
        b"\x1f.moby.buildkit.v1.StatusRequest\x1a .moby.buildkit.v1.StatusRespon"
        b"se0\x01\x12M\n\x07Session\x12\x1e.moby.filesync.v1.BytesMessage\x1a\x1e.moby.filesync."
        b"v1.BytesMessage(\x010\x01b\x06proto3\n\xbe\x02\n$asyncctr/buildkit/proto/health.p"
        b'roto\x12\x0egrpc.health.v1"\x14\n\x12HealthCheckRequest"\x8b\x01\n\x13HealthCheckRespon'
        b"se\x12I\n\x06status\x18\x01 \x01(\x0e21.grpc.health.v1.HealthCheckResponse.ServingS"
        b'tatusR\x06status")\n\rServingStatus\x12\x0b\n\x07UNKNOWN\x10\x00\x12\x0b\n\x07SERVING\x10\x012Z\n\x06Heal'
        b'th\x12P\n\x05Check\x12".grpc.health.v1.HealthCheckRequest\x1a#.grpc.health.v1'
        b".HealthCheckResponseb\x06proto3\n\x87\x02\n%asyncctr/buildkit/proto/secrets"
        b'.proto\x12\x18moby.buildkit.secrets.v1""\n\x10GetSecretRequest\x12\x0e\n\x02id\x18\x01 \x01(\t'
        b"R\x02id\"'\n\x11GetSecretResponse\x12\x12\n\x04data\x18\x01 \x01(\x0cR\x04data2o\n\x07Secrets\x12d\n\tGetS"
        b"ecret\x12*.moby.buildkit.secrets.v1.GetSecretRequest\x1a+.moby.buildki"
        b"t.secrets.v1.GetSecretResponseb\x06proto3\n\xda\x02\n!asyncctr/buildkit/pro"
        b"to/ssh.proto\x12\x12moby.sshforward.v1\x1a%asyncctr/buildkit/proto/sessio"
        b'n.proto"#\n\x11CheckAgentRequest\x12\x0e\n\x02id\x18\x01 \x01(\tR\x02id"\x14\n\x12CheckAgentRespon'
        b"se2\xb6\x01\n\x03SSH\x12[\n\nCheckAgent\x12%.moby.sshforward.v1.CheckAgentRequest\x1a"
        b"&.moby.sshforward.v1.CheckAgentResponse\x12R\n\x0cForwardAgent\x12\x1e.moby.f"
        b"ilesync.v1.BytesMessage\x1a\x1e.moby.filesync.v1.BytesMessage(\x010\x01b\x06pro"
        b'to3\n\xe4\x01\n\x19google/protobuf/any.proto\x12\x0fgoogle.protobuf"6\n\x03Any\x12\x19\n\x08typ'
        b"e_url\x18\x01 \x01(\tR\x07typeUrl\x12\x14\n\x05value\x18\x02 \x01(\x0cR\x05valueBv\n\x13com.google.protobu"
        b"fB\x08AnyProtoP\x01Z,google.golang.org/protobuf/types/known/anypb\xa2\x02\x03GP"
        b"B\xaa\x02\x1eGoogle.Protobuf.WellKnownTypesb\x06proto3\n\x8f\x01\n$asyncctr/buildkit"
        b'/proto/status.proto\x12\ngoogle.rpc\x1a\x19google/protobuf/any.proto"8\n\x06St'
        b"atus\x12.\n\x07details\x18\x03 \x03(\x0b2\x14.google.protobuf.AnyR\x07detailsb\x06proto3"
    )
)
