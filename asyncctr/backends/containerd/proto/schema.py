"""The messages of the files here; generated, see ``nox -s protos``."""

from asyncctr.transport.protobuf import Schema

SCHEMA = Schema(
    (
        b'\n\xe4\x01\n\x19google/protobuf/any.proto\x12\x0fgoogle.protobuf"6\n\x03Any\x12\x19\n\x08type_u'
        b"rl\x18\x01 \x01(\tR\x07typeUrl\x12\x14\n\x05value\x18\x02 \x01(\x0cR\x05valueBv\n\x13com.google.protobufB\x08"
        b"AnyProtoP\x01Z,google.golang.org/protobuf/types/known/anypb\xa2\x02\x03GPB\xaa\x02"
        b"\x1eGoogle.Protobuf.WellKnownTypesb\x06proto3\n\xbe\x01\n\x1bgoogle/protobuf/empt"
        b'y.proto\x12\x0fgoogle.protobuf"\x07\n\x05EmptyB}\n\x13com.google.protobufB\nEmptyP'
        b"rotoP\x01Z.google.golang.org/protobuf/types/known/emptypb\xf8\x01\x01\xa2\x02\x03GPB\xaa"
        b"\x02\x1eGoogle.Protobuf.WellKnownTypesb\x06proto3\n\xff\x01\n\x1fgoogle/protobuf/tim"
        b'estamp.proto\x12\x0fgoogle.protobuf";\n\tTimestamp\x12\x18\n\x07seconds\x18\x01 \x01(\x03R\x07sec'
        b"onds\x12\x14\n\x05nanos\x18\x02 \x01(\x05R\x05nanosB\x85\x01\n\x13com.google.protobufB\x0eTimestampPro"
        b"toP\x01Z2google.golang.org/protobuf/types/known/timestamppb\xf8\x01\x01\xa2\x02\x03GP"
        b"B\xaa\x02\x1eGoogle.Protobuf.WellKnownTypesb\x06proto3\n\xf8\x0e\n3asyncctr/backends"
        b"/containerd/proto/containers.proto\x12!containerd.services.containe"
        b"rs.v1\x1a\x19google/protobuf/any.proto\x1a\x1bgoogle/protobuf/empty.proto\x1a\x1fg"
        b'oogle/protobuf/timestamp.proto"\xba\x05\n\tContainer\x12\x0e\n\x02id\x18\x01 \x01(\tR\x02id\x12P\n\x06'
        b"labels\x18\x02 \x03(\x0b28.containerd.services.containers.v1.Container.Label"
        b"sEntryR\x06labels\x12\x14\n\x05image\x18\x03 \x01(\tR\x05image\x12N\n\x07runtime\x18\x04 \x01(\x0b24.containe"
        b"rd.services.containers.v1.Container.RuntimeR\x07runtime\x12(\n\x04spec\x18\x05 \x01"
        b"(\x0b2\x14.google.protobuf.AnyR\x04spec\x12 \n\x0bsnapshotter\x18\x06 \x01(\tR\x0bsnapshotter"
        b"\x12!\n\x0csnapshot_key\x18\x07 \x01(\tR\x0bsnapshotKey\x129\n\ncreated_at\x18\x08 \x01(\x0b2\x1a.google"
        b".protobuf.TimestampR\tcreatedAt\x12\\\n\nextensions\x18\n \x03(\x0b2<.containerd."
        b"services.containers.v1.Container.ExtensionsEntryR\nextensions\x1aM\n\x07"
        b"Runtime\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12.\n\x07options\x18\x02 \x01(\x0b2\x14.google.protobuf.A"
        b"nyR\x07options\x1a9\n\x0bLabelsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05val"
        b"ue:\x028\x01\x1aS\n\x0fExtensionsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12*\n\x05value\x18\x02 \x01(\x0b2\x14.goo"
        b'gle.protobuf.AnyR\x05value:\x028\x01"%\n\x13GetContainerRequest\x12\x0e\n\x02id\x18\x01 \x01(\tR\x02'
        b'id"b\n\x14GetContainerResponse\x12J\n\tcontainer\x18\x01 \x01(\x0b2,.containerd.servi'
        b'ces.containers.v1.ContainerR\tcontainer"1\n\x15ListContainersRequest\x12'
        b'\x18\n\x07filters\x18\x01 \x03(\tR\x07filters"b\n\x14ListContainerMessage\x12J\n\tcontainer\x18\x01'
        b' \x01(\x0b2,.containerd.services.containers.v1.ContainerR\tcontainer"d\n'
        b"\x16CreateContainerRequest\x12J\n\tcontainer\x18\x01 \x01(\x0b2,.containerd.services"
        b'.containers.v1.ContainerR\tcontainer"e\n\x17CreateContainerResponse\x12J'
        b"\n\tcontainer\x18\x01 \x01(\x0b2,.containerd.services.containers.v1.ContainerR"
        b'\tcontainer"(\n\x16DeleteContainerRequest\x12\x0e\n\x02id\x18\x01 \x01(\tR\x02id2\xe6\x03\n\nContain'
        b"ers\x12v\n\x03Get\x126.containerd.services.containers.v1.GetContainerReque"
        b"st\x1a7.containerd.services.containers.v1.GetContainerResponse\x12\x81\x01\n\n"
        b"ListStream\x128.containerd.services.containers.v1.ListContainersReq"
        b"uest\x1a7.containerd.services.containers.v1.ListContainerMessage0\x01\x12"
        b"\x7f\n\x06Create\x129.containerd.services.containers.v1.CreateContainerReq"
        b"uest\x1a:.containerd.services.containers.v1.CreateContainerResponse"
        b"\x12[\n\x06Delete\x129.containerd.services.containers.v1.DeleteContainerRe"
        b"quest\x1a\x16.google.protobuf.Emptyb\x06proto3\n\xe6\x01\n google/protobuf/field_"
        b'mask.proto\x12\x0fgoogle.protobuf"!\n\tFieldMask\x12\x14\n\x05paths\x18\x01 \x03(\tR\x05pathsB\x85'
        b"\x01\n\x13com.google.protobufB\x0eFieldMaskProtoP\x01Z2google.golang.org/prot"
        b"obuf/types/known/fieldmaskpb\xf8\x01\x01\xa2\x02\x03GPB\xaa\x02\x1eGoogle.Protobuf.WellKnow"
        b"nTypesb\x06proto3\n\x9f\x0f\n0asyncctr/backends/containerd/proto/content.pr"
        b"oto\x12\x1econtainerd.services.content.v1\x1a\x1bgoogle/protobuf/empty.proto"
        b'\x1a google/protobuf/field_mask.proto"\xb7\x01\n\x04Info\x12\x16\n\x06digest\x18\x01 \x01(\tR\x06dig'
        b"est\x12\x12\n\x04size\x18\x02 \x01(\x03R\x04size\x12H\n\x06labels\x18\x05 \x03(\x0b20.containerd.services.co"
        b"ntent.v1.Info.LabelsEntryR\x06labels\x1a9\n\x0bLabelsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03k"
        b'ey\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01"%\n\x0bInfoRequest\x12\x16\n\x06digest\x18\x01 \x01(\tR\x06dig'
        b'est"H\n\x0cInfoResponse\x128\n\x04info\x18\x01 \x01(\x0b2$.containerd.services.content.'
        b'v1.InfoR\x04info"\x86\x01\n\rUpdateRequest\x128\n\x04info\x18\x01 \x01(\x0b2$.containerd.servi'
        b"ces.content.v1.InfoR\x04info\x12;\n\x0bupdate_mask\x18\x02 \x01(\x0b2\x1a.google.protobuf"
        b'.FieldMaskR\nupdateMask"J\n\x0eUpdateResponse\x128\n\x04info\x18\x01 \x01(\x0b2$.contain'
        b'erd.services.content.v1.InfoR\x04info"X\n\x12ReadContentRequest\x12\x16\n\x06dige'
        b'st\x18\x01 \x01(\tR\x06digest\x12\x16\n\x06offset\x18\x02 \x01(\x03R\x06offset\x12\x12\n\x04size\x18\x03 \x01(\x03R\x04size"A\n\x13'
        b'ReadContentResponse\x12\x16\n\x06offset\x18\x01 \x01(\x03R\x06offset\x12\x12\n\x04data\x18\x02 \x01(\x0cR\x04data"'
        b"\xde\x02\n\x13WriteContentRequest\x12C\n\x06action\x18\x01 \x01(\x0e2+.containerd.services.co"
        b"ntent.v1.WriteActionR\x06action\x12\x10\n\x03ref\x18\x02 \x01(\tR\x03ref\x12\x14\n\x05total\x18\x03 \x01(\x03R\x05t"
        b"otal\x12\x1a\n\x08expected\x18\x04 \x01(\tR\x08expected\x12\x16\n\x06offset\x18\x05 \x01(\x03R\x06offset\x12\x12\n\x04data"
        b"\x18\x06 \x01(\x0cR\x04data\x12W\n\x06labels\x18\x07 \x03(\x0b2?.containerd.services.content.v1.Wr"
        b"iteContentRequest.LabelsEntryR\x06labels\x1a9\n\x0bLabelsEntry\x12\x10\n\x03key\x18\x01 \x01("
        b'\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01"\xa1\x01\n\x14WriteContentResponse\x12C\n\x06act'
        b"ion\x18\x01 \x01(\x0e2+.containerd.services.content.v1.WriteActionR\x06action\x12\x16"
        b"\n\x06offset\x18\x04 \x01(\x03R\x06offset\x12\x14\n\x05total\x18\x05 \x01(\x03R\x05total\x12\x16\n\x06digest\x18\x06 \x01(\tR\x06di"
        b'gest" \n\x0cAbortRequest\x12\x10\n\x03ref\x18\x01 \x01(\tR\x03ref*.\n\x0bWriteAction\x12\x08\n\x04STAT\x10\x00\x12'
        b"\t\n\x05WRITE\x10\x01\x12\n\n\x06COMMIT\x10\x022\x8f\x04\n\x07Content\x12a\n\x04Info\x12+.containerd.services"
        b".content.v1.InfoRequest\x1a,.containerd.services.content.v1.InfoRes"
        b"ponse\x12g\n\x06Update\x12-.containerd.services.content.v1.UpdateRequest\x1a."
        b".containerd.services.content.v1.UpdateResponse\x12q\n\x04Read\x122.contain"
        b"erd.services.content.v1.ReadContentRequest\x1a3.containerd.services"
        b".content.v1.ReadContentResponse0\x01\x12v\n\x05Write\x123.containerd.services"
        b".content.v1.WriteContentRequest\x1a4.containerd.services.content.v1"
        b".WriteContentResponse(\x010\x01\x12M\n\x05Abort\x12,.containerd.services.content"
        b".v1.AbortRequest\x1a\x16.google.protobuf.Emptyb\x06proto3\n\xf6\x03\n.asyncctr/ba"
        b'ckends/containerd/proto/types.proto\x12\x10containerd.types"e\n\x05Mount\x12\x12'
        b"\n\x04type\x18\x01 \x01(\tR\x04type\x12\x16\n\x06source\x18\x02 \x01(\tR\x06source\x12\x16\n\x06target\x18\x03 \x01(\tR\x06targ"
        b'et\x12\x18\n\x07options\x18\x04 \x03(\tR\x07options"\xe8\x01\n\nDescriptor\x12\x1d\n\nmedia_type\x18\x01 \x01(\tR'
        b"\tmediaType\x12\x16\n\x06digest\x18\x02 \x01(\tR\x06digest\x12\x12\n\x04size\x18\x03 \x01(\x03R\x04size\x12O\n\x0bannota"
        b"tions\x18\x05 \x03(\x0b2-.containerd.types.Descriptor.AnnotationsEntryR\x0banno"
        b"tations\x1a>\n\x10AnnotationsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05va"
        b'lue:\x028\x01"X\n\x08Platform\x12\x0e\n\x02os\x18\x01 \x01(\tR\x02os\x12"\n\x0carchitecture\x18\x02 \x01(\tR\x0carchi'
        b"tecture\x12\x18\n\x07variant\x18\x03 \x01(\tR\x07variantb\x06proto3\n\xa8\x03\n-asyncctr/backends/"
        b"containerd/proto/diff.proto\x12\x1bcontainerd.services.diff.v1\x1a.asyncc"
        b'tr/backends/containerd/proto/types.proto"q\n\x0cApplyRequest\x120\n\x04diff'
        b"\x18\x01 \x01(\x0b2\x1c.containerd.types.DescriptorR\x04diff\x12/\n\x06mounts\x18\x02 \x03(\x0b2\x17.con"
        b'tainerd.types.MountR\x06mounts"G\n\rApplyResponse\x126\n\x07applied\x18\x01 \x01(\x0b2\x1c.'
        b"containerd.types.DescriptorR\x07applied2f\n\x04Diff\x12^\n\x05Apply\x12).containe"
        b"rd.services.diff.v1.ApplyRequest\x1a*.containerd.services.diff.v1.A"
        b"pplyResponseb\x06proto3\n\xf3\x0c\n/asyncctr/backends/containerd/proto/imag"
        b"es.proto\x12\x1dcontainerd.services.images.v1\x1a\x1bgoogle/protobuf/empty.p"
        b"roto\x1a\x1fgoogle/protobuf/timestamp.proto\x1a.asyncctr/backends/contain"
        b'erd/proto/types.proto"\x91\x02\n\x05Image\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12H\n\x06labels\x18\x02 '
        b"\x03(\x0b20.containerd.services.images.v1.Image.LabelsEntryR\x06labels\x124\n"
        b"\x06target\x18\x03 \x01(\x0b2\x1c.containerd.types.DescriptorR\x06target\x129\n\ncreated_a"
        b"t\x18\x07 \x01(\x0b2\x1a.google.protobuf.TimestampR\tcreatedAt\x1a9\n\x0bLabelsEntry\x12\x10\n"
        b'\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01"%\n\x0fGetImageRequest\x12\x12\n\x04'
        b'name\x18\x01 \x01(\tR\x04name"N\n\x10GetImageResponse\x12:\n\x05image\x18\x01 \x01(\x0b2$.containerd'
        b'.services.images.v1.ImageR\x05image"-\n\x11ListImagesRequest\x12\x18\n\x07filters'
        b'\x18\x01 \x03(\tR\x07filters"R\n\x12ListImagesResponse\x12<\n\x06images\x18\x01 \x03(\x0b2$.containe'
        b'rd.services.images.v1.ImageR\x06images"P\n\x12CreateImageRequest\x12:\n\x05ima'
        b'ge\x18\x01 \x01(\x0b2$.containerd.services.images.v1.ImageR\x05image"Q\n\x13CreateI'
        b"mageResponse\x12:\n\x05image\x18\x01 \x01(\x0b2$.containerd.services.images.v1.Imag"
        b'eR\x05image"P\n\x12UpdateImageRequest\x12:\n\x05image\x18\x01 \x01(\x0b2$.containerd.servi'
        b'ces.images.v1.ImageR\x05image"Q\n\x13UpdateImageResponse\x12:\n\x05image\x18\x01 \x01(\x0b'
        b'2$.containerd.services.images.v1.ImageR\x05image"<\n\x12DeleteImageRequ'
        b"est\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x12\n\x04sync\x18\x02 \x01(\x08R\x04sync2\x94\x04\n\x06Images\x12f\n\x03Get\x12.."
        b"containerd.services.images.v1.GetImageRequest\x1a/.containerd.servi"
        b"ces.images.v1.GetImageResponse\x12k\n\x04List\x120.containerd.services.ima"
        b"ges.v1.ListImagesRequest\x1a1.containerd.services.images.v1.ListIma"
        b"gesResponse\x12o\n\x06Create\x121.containerd.services.images.v1.CreateImag"
        b"eRequest\x1a2.containerd.services.images.v1.CreateImageResponse\x12o\n\x06"
        b"Update\x121.containerd.services.images.v1.UpdateImageRequest\x1a2.cont"
        b"ainerd.services.images.v1.UpdateImageResponse\x12S\n\x06Delete\x121.contai"
        b"nerd.services.images.v1.DeleteImageRequest\x1a\x16.google.protobuf.Emp"
        b"tyb\x06proto3\n\xa5\x07\n6asyncctr/backends/containerd/proto/introspection."
        b"proto\x12$containerd.services.introspection.v1\x1a\x1bgoogle/protobuf/emp"
        b'ty.proto"9\n\tInitError\x12\x12\n\x04code\x18\x01 \x01(\x05R\x04code\x12\x18\n\x07message\x18\x02 \x01(\tR\x07mess'
        b'age"\xad\x02\n\x06Plugin\x12\x12\n\x04type\x18\x01 \x01(\tR\x04type\x12\x0e\n\x02id\x18\x02 \x01(\tR\x02id\x12S\n\x07exports\x18\x05 '
        b"\x03(\x0b29.containerd.services.introspection.v1.Plugin.ExportsEntryR\x07"
        b'exports\x12"\n\x0ccapabilities\x18\x06 \x03(\tR\x0ccapabilities\x12J\n\x08init_err\x18\x07 \x01(\x0b2/.'
        b"containerd.services.introspection.v1.InitErrorR\x07initErr\x1a:\n\x0cExpor"
        b'tsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01"*\n\x0ePluginsRe'
        b'quest\x12\x18\n\x07filters\x18\x01 \x03(\tR\x07filters"Y\n\x0fPluginsResponse\x12F\n\x07plugins\x18\x01 '
        b'\x03(\x0b2,.containerd.services.introspection.v1.PluginR\x07plugins"L\n\x0eSe'
        b"rverResponse\x12\x12\n\x04uuid\x18\x01 \x01(\tR\x04uuid\x12\x10\n\x03pid\x18\x02 \x01(\x04R\x03pid\x12\x14\n\x05pidns\x18\x03 \x01("
        b"\x04R\x05pidns2\xdf\x01\n\rIntrospection\x12v\n\x07Plugins\x124.containerd.services.intr"
        b"ospection.v1.PluginsRequest\x1a5.containerd.services.introspection."
        b"v1.PluginsResponse\x12V\n\x06Server\x12\x16.google.protobuf.Empty\x1a4.container"
        b"d.services.introspection.v1.ServerResponseb\x06proto3\n\xe0\x07\n/asyncctr/"
        b"backends/containerd/proto/leases.proto\x12\x1dcontainerd.services.leas"
        b'es.v1\x1a\x1bgoogle/protobuf/empty.proto"\x9c\x01\n\x05Lease\x12\x0e\n\x02id\x18\x01 \x01(\tR\x02id\x12H\n\x06'
        b"labels\x18\x03 \x03(\x0b20.containerd.services.leases.v1.Lease.LabelsEntryR\x06"
        b"labels\x1a9\n\x0bLabelsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028"
        b'\x01"\xac\x01\n\rCreateRequest\x12\x0e\n\x02id\x18\x01 \x01(\tR\x02id\x12P\n\x06labels\x18\x03 \x03(\x0b28.containerd'
        b".services.leases.v1.CreateRequest.LabelsEntryR\x06labels\x1a9\n\x0bLabelsE"
        b'ntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01"L\n\x0eCreateRespon'
        b'se\x12:\n\x05lease\x18\x01 \x01(\x0b2$.containerd.services.leases.v1.LeaseR\x05lease"3'
        b"\n\rDeleteRequest\x12\x0e\n\x02id\x18\x01 \x01(\tR\x02id\x12\x12\n\x04sync\x18\x02 \x01(\x08R\x04sync\"'\n\x0bListReque"
        b'st\x12\x18\n\x07filters\x18\x01 \x03(\tR\x07filters"L\n\x0cListResponse\x12<\n\x06leases\x18\x01 \x03(\x0b2$.c'
        b"ontainerd.services.leases.v1.LeaseR\x06leases2\xa0\x02\n\x06Leases\x12e\n\x06Create\x12"
        b",.containerd.services.leases.v1.CreateRequest\x1a-.containerd.servi"
        b"ces.leases.v1.CreateResponse\x12N\n\x06Delete\x12,.containerd.services.lea"
        b"ses.v1.DeleteRequest\x1a\x16.google.protobuf.Empty\x12_\n\x04List\x12*.container"
        b"d.services.leases.v1.ListRequest\x1a+.containerd.services.leases.v1"
        b".ListResponseb\x06proto3\n\xa6\x02\n-asyncctr/backends/containerd/proto/run"
        b'c.proto\x12\x12containerd.runc.v1"\xd8\x01\n\x07Options\x12"\n\rno_pivot_root\x18\x01 \x01(\x08R\x0b'
        b"noPivotRoot\x12\x1f\n\x0bshim_cgroup\x18\x03 \x01(\tR\nshimCgroup\x12\x15\n\x06io_uid\x18\x04 \x01(\rR\x05io"
        b"Uid\x12\x15\n\x06io_gid\x18\x05 \x01(\rR\x05ioGid\x12\x1f\n\x0bbinary_name\x18\x06 \x01(\tR\nbinaryName\x12\x12\n\x04r"
        b"oot\x18\x07 \x01(\tR\x04root\x12%\n\x0esystemd_cgroup\x18\t \x01(\x08R\rsystemdCgroupb\x06proto3\n\xe6"
        b"\x06\n0asyncctr/backends/containerd/proto/sandbox.proto\x12\x1econtainerd."
        b"services.sandbox.v1\"W\n\x12StoreCreateRequest\x12A\n\x07sandbox\x18\x01 \x01(\x0b2'.con"
        b'tainerd.services.sandbox.v1.SandboxR\x07sandbox"X\n\x13StoreCreateRespo'
        b"nse\x12A\n\x07sandbox\x18\x01 \x01(\x0b2'.containerd.services.sandbox.v1.SandboxR\x07s"
        b'andbox"3\n\x12StoreDeleteRequest\x12\x1d\n\nsandbox_id\x18\x01 \x01(\tR\tsandboxId"\x15\n\x13S'
        b'toreDeleteResponse"\x9a\x02\n\x07Sandbox\x12\x1d\n\nsandbox_id\x18\x01 \x01(\tR\tsandboxId\x12I\n'
        b"\x07runtime\x18\x02 \x01(\x0b2/.containerd.services.sandbox.v1.Sandbox.RuntimeR"
        b"\x07runtime\x12K\n\x06labels\x18\x04 \x03(\x0b23.containerd.services.sandbox.v1.Sandbo"
        b"x.LabelsEntryR\x06labels\x1a\x1d\n\x07Runtime\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x1a9\n\x0bLabelsEn"
        b"try\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x012\xed\x01\n\x05Store\x12q\n\x06Cre"
        b"ate\x122.containerd.services.sandbox.v1.StoreCreateRequest\x1a3.contai"
        b"nerd.services.sandbox.v1.StoreCreateResponse\x12q\n\x06Delete\x122.contain"
        b"erd.services.sandbox.v1.StoreDeleteRequest\x1a3.containerd.services"
        b".sandbox.v1.StoreDeleteResponseb\x06proto3\n\x83\x12\n2asyncctr/backends/co"
        b"ntainerd/proto/snapshots.proto\x12 containerd.services.snapshots.v1"
        b"\x1a\x1bgoogle/protobuf/empty.proto\x1a.asyncctr/backends/containerd/prot"
        b'o/types.proto"\xfd\x01\n\x16PrepareSnapshotRequest\x12 \n\x0bsnapshotter\x18\x01 \x01(\tR\x0bs'
        b"napshotter\x12\x10\n\x03key\x18\x02 \x01(\tR\x03key\x12\x16\n\x06parent\x18\x03 \x01(\tR\x06parent\x12\\\n\x06labels\x18\x04"
        b" \x03(\x0b2D.containerd.services.snapshots.v1.PrepareSnapshotRequest.L"
        b"abelsEntryR\x06labels\x1a9\n\x0bLabelsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01"
        b'(\tR\x05value:\x028\x01"J\n\x17PrepareSnapshotResponse\x12/\n\x06mounts\x18\x01 \x03(\x0b2\x17.conta'
        b'inerd.types.MountR\x06mounts"\xf7\x01\n\x13ViewSnapshotRequest\x12 \n\x0bsnapshotter'
        b"\x18\x01 \x01(\tR\x0bsnapshotter\x12\x10\n\x03key\x18\x02 \x01(\tR\x03key\x12\x16\n\x06parent\x18\x03 \x01(\tR\x06parent\x12Y\n"
        b"\x06labels\x18\x04 \x03(\x0b2A.containerd.services.snapshots.v1.ViewSnapshotReq"
        b"uest.LabelsEntryR\x06labels\x1a9\n\x0bLabelsEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05val"
        b'ue\x18\x02 \x01(\tR\x05value:\x028\x01"G\n\x14ViewSnapshotResponse\x12/\n\x06mounts\x18\x01 \x03(\x0b2\x17.co'
        b'ntainerd.types.MountR\x06mounts"C\n\rMountsRequest\x12 \n\x0bsnapshotter\x18\x01 \x01'
        b'(\tR\x0bsnapshotter\x12\x10\n\x03key\x18\x02 \x01(\tR\x03key"A\n\x0eMountsResponse\x12/\n\x06mounts\x18\x01 '
        b'\x03(\x0b2\x17.containerd.types.MountR\x06mounts"K\n\x15RemoveSnapshotRequest\x12 \n'
        b'\x0bsnapshotter\x18\x01 \x01(\tR\x0bsnapshotter\x12\x10\n\x03key\x18\x02 \x01(\tR\x03key"\xf7\x01\n\x15CommitSnap'
        b"shotRequest\x12 \n\x0bsnapshotter\x18\x01 \x01(\tR\x0bsnapshotter\x12\x12\n\x04name\x18\x02 \x01(\tR\x04nam"
        b"e\x12\x10\n\x03key\x18\x03 \x01(\tR\x03key\x12[\n\x06labels\x18\x04 \x03(\x0b2C.containerd.services.snapsh"
        b"ots.v1.CommitSnapshotRequest.LabelsEntryR\x06labels\x1a9\n\x0bLabelsEntry\x12"
        b'\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01"I\n\x13StatSnapshotReque'
        b'st\x12 \n\x0bsnapshotter\x18\x01 \x01(\tR\x0bsnapshotter\x12\x10\n\x03key\x18\x02 \x01(\tR\x03key"\xb9\x01\n\x04Info\x12'
        b"\x12\n\x04name\x18\x01 \x01(\tR\x04name\x12\x16\n\x06parent\x18\x02 \x01(\tR\x06parent\x12J\n\x06labels\x18\x06 \x03(\x0b22.co"
        b"ntainerd.services.snapshots.v1.Info.LabelsEntryR\x06labels\x1a9\n\x0bLabel"
        b'sEntry\x12\x10\n\x03key\x18\x01 \x01(\tR\x03key\x12\x14\n\x05value\x18\x02 \x01(\tR\x05value:\x028\x01"R\n\x14StatSnapsh'
        b"otResponse\x12:\n\x04info\x18\x01 \x01(\x0b2&.containerd.services.snapshots.v1.Info"
        b"R\x04info2\x9c\x05\n\tSnapshots\x12~\n\x07Prepare\x128.containerd.services.snapshots."
        b"v1.PrepareSnapshotRequest\x1a9.containerd.services.snapshots.v1.Pre"
        b"pareSnapshotResponse\x12u\n\x04View\x125.containerd.services.snapshots.v1."
        b"ViewSnapshotRequest\x1a6.containerd.services.snapshots.v1.ViewSnaps"
        b"hotResponse\x12k\n\x06Mounts\x12/.containerd.services.snapshots.v1.MountsR"
        b"equest\x1a0.containerd.services.snapshots.v1.MountsResponse\x12Y\n\x06Comm"
        b"it\x127.containerd.services.snapshots.v1.CommitSnapshotRequest\x1a\x16.go"
        b"ogle.protobuf.Empty\x12Y\n\x06Remove\x127.containerd.services.snapshots.v1"
        b".RemoveSnapshotRequest\x1a\x16.google.protobuf.Empty\x12u\n\x04Stat\x125.contain"
        b"erd.services.snapshots.v1.StatSnapshotRequest\x1a6.containerd.servi"
        b"ces.snapshots.v1.StatSnapshotResponseb\x06proto3\n\xde\x01\n2asyncctr/backe"
        b"nds/containerd/proto/streaming.proto\x12 containerd.services.stream"
        b'ing.v1\x1a\x19google/protobuf/any.proto"\x1c\n\nStreamInit\x12\x0e\n\x02id\x18\x01 \x01(\tR\x02id2'
        b"E\n\tStreaming\x128\n\x06Stream\x12\x14.google.protobuf.Any\x1a\x14.google.protobuf.A"
        b"ny(\x010\x01b\x06proto3\n\xb9\x17\n.asyncctr/backends/containerd/proto/tasks.prot"
        b"o\x12\x1ccontainerd.services.tasks.v1\x1a\x19google/protobuf/any.proto\x1a\x1bgoog"
        b"le/protobuf/empty.proto\x1a\x1fgoogle/protobuf/timestamp.proto\x1a.asyncc"
        b'tr/backends/containerd/proto/types.proto"\xf9\x01\n\x11CreateTaskRequest\x12!'
        b"\n\x0ccontainer_id\x18\x01 \x01(\tR\x0bcontainerId\x12/\n\x06rootfs\x18\x03 \x03(\x0b2\x17.containerd.t"
        b"ypes.MountR\x06rootfs\x12\x14\n\x05stdin\x18\x04 \x01(\tR\x05stdin\x12\x16\n\x06stdout\x18\x05 \x01(\tR\x06stdout"
        b"\x12\x16\n\x06stderr\x18\x06 \x01(\tR\x06stderr\x12\x1a\n\x08terminal\x18\x07 \x01(\x08R\x08terminal\x12.\n\x07options\x18"
        b'\t \x01(\x0b2\x14.google.protobuf.AnyR\x07options"I\n\x12CreateTaskResponse\x12!\n\x0cco'
        b'ntainer_id\x18\x01 \x01(\tR\x0bcontainerId\x12\x10\n\x03pid\x18\x02 \x01(\rR\x03pid"J\n\x0cStartRequest\x12'
        b'!\n\x0ccontainer_id\x18\x01 \x01(\tR\x0bcontainerId\x12\x17\n\x07exec_id\x18\x02 \x01(\tR\x06execId"!\n\rS'
        b'tartResponse\x12\x10\n\x03pid\x18\x01 \x01(\rR\x03pid"6\n\x11DeleteTaskRequest\x12!\n\x0ccontainer'
        b'_id\x18\x01 \x01(\tR\x0bcontainerId"\x8c\x01\n\x0eDeleteResponse\x12\x0e\n\x02id\x18\x01 \x01(\tR\x02id\x12\x10\n\x03pid'
        b"\x18\x02 \x01(\rR\x03pid\x12\x1f\n\x0bexit_status\x18\x03 \x01(\rR\nexitStatus\x127\n\texited_at\x18\x04 \x01(\x0b2"
        b'\x1a.google.protobuf.TimestampR\x08exitedAt"H\n\nGetRequest\x12!\n\x0ccontainer'
        b'_id\x18\x01 \x01(\tR\x0bcontainerId\x12\x17\n\x07exec_id\x18\x02 \x01(\tR\x06execId"N\n\x0bGetResponse\x12?'
        b'\n\x07process\x18\x01 \x01(\x0b2%.containerd.services.tasks.v1.ProcessR\x07process"'
        b'*\n\x10ListTasksRequest\x12\x16\n\x06filter\x18\x01 \x01(\tR\x06filter"P\n\x11ListTasksResponse'
        b'\x12;\n\x05tasks\x18\x01 \x03(\x0b2%.containerd.services.tasks.v1.ProcessR\x05tasks"s\n'
        b"\x0bKillRequest\x12!\n\x0ccontainer_id\x18\x01 \x01(\tR\x0bcontainerId\x12\x17\n\x07exec_id\x18\x02 \x01(\t"
        b'R\x06execId\x12\x16\n\x06signal\x18\x03 \x01(\rR\x06signal\x12\x10\n\x03all\x18\x04 \x01(\x08R\x03all"b\n\x0eCloseIOReq'
        b"uest\x12!\n\x0ccontainer_id\x18\x01 \x01(\tR\x0bcontainerId\x12\x17\n\x07exec_id\x18\x02 \x01(\tR\x06execId"
        b'\x12\x14\n\x05stdin\x18\x03 \x01(\x08R\x05stdin"5\n\x10PauseTaskRequest\x12!\n\x0ccontainer_id\x18\x01 \x01(\t'
        b'R\x0bcontainerId"6\n\x11ResumeTaskRequest\x12!\n\x0ccontainer_id\x18\x01 \x01(\tR\x0bcontai'
        b'nerId"I\n\x0bWaitRequest\x12!\n\x0ccontainer_id\x18\x01 \x01(\tR\x0bcontainerId\x12\x17\n\x07exec_'
        b'id\x18\x02 \x01(\tR\x06execId"h\n\x0cWaitResponse\x12\x1f\n\x0bexit_status\x18\x01 \x01(\rR\nexitStatu'
        b's\x127\n\texited_at\x18\x02 \x01(\x0b2\x1a.google.protobuf.TimestampR\x08exitedAt"\xc8\x02\n\x07P'
        b"rocess\x12!\n\x0ccontainer_id\x18\x01 \x01(\tR\x0bcontainerId\x12\x0e\n\x02id\x18\x02 \x01(\tR\x02id\x12\x10\n\x03pid"
        b"\x18\x03 \x01(\rR\x03pid\x12<\n\x06status\x18\x04 \x01(\x0e2$.containerd.services.tasks.v1.Statu"
        b"sR\x06status\x12\x14\n\x05stdin\x18\x05 \x01(\tR\x05stdin\x12\x16\n\x06stdout\x18\x06 \x01(\tR\x06stdout\x12\x16\n\x06stder"
        b"r\x18\x07 \x01(\tR\x06stderr\x12\x1a\n\x08terminal\x18\x08 \x01(\x08R\x08terminal\x12\x1f\n\x0bexit_status\x18\t \x01(\r"
        b"R\nexitStatus\x127\n\texited_at\x18\n \x01(\x0b2\x1a.google.protobuf.TimestampR\x08exi"
        b"tedAt*U\n\x06Status\x12\x0b\n\x07UNKNOWN\x10\x00\x12\x0b\n\x07CREATED\x10\x01\x12\x0b\n\x07RUNNING\x10\x02\x12\x0b\n\x07STOPPE"
        b"D\x10\x03\x12\n\n\x06PAUSED\x10\x04\x12\x0b\n\x07PAUSING\x10\x052\xa3\x07\n\x05Tasks\x12k\n\x06Create\x12/.containerd.se"
        b"rvices.tasks.v1.CreateTaskRequest\x1a0.containerd.services.tasks.v1"
        b".CreateTaskResponse\x12`\n\x05Start\x12*.containerd.services.tasks.v1.Star"
        b"tRequest\x1a+.containerd.services.tasks.v1.StartResponse\x12g\n\x06Delete\x12"
        b"/.containerd.services.tasks.v1.DeleteTaskRequest\x1a,.containerd.se"
        b"rvices.tasks.v1.DeleteResponse\x12Z\n\x03Get\x12(.containerd.services.task"
        b"s.v1.GetRequest\x1a).containerd.services.tasks.v1.GetResponse\x12g\n\x04Li"
        b"st\x12..containerd.services.tasks.v1.ListTasksRequest\x1a/.containerd."
        b"services.tasks.v1.ListTasksResponse\x12I\n\x04Kill\x12).containerd.service"
        b"s.tasks.v1.KillRequest\x1a\x16.google.protobuf.Empty\x12O\n\x07CloseIO\x12,.cont"
        b"ainerd.services.tasks.v1.CloseIORequest\x1a\x16.google.protobuf.Empty\x12"
        b"O\n\x05Pause\x12..containerd.services.tasks.v1.PauseTaskRequest\x1a\x16.googl"
        b"e.protobuf.Empty\x12Q\n\x06Resume\x12/.containerd.services.tasks.v1.Resume"
        b"TaskRequest\x1a\x16.google.protobuf.Empty\x12]\n\x04Wait\x12).containerd.service"
        b"s.tasks.v1.WaitRequest\x1a*.containerd.services.tasks.v1.WaitRespon"
        b"seb\x06proto3\n\xf8\x03\n1asyncctr/backends/containerd/proto/transfer.proto"
        b"\x12\x1fcontainerd.services.transfer.v1\x1a\x19google/protobuf/any.proto\x1a\x1bgo"
        b'ogle/protobuf/empty.proto"\xc3\x01\n\x0fTransferRequest\x12,\n\x06source\x18\x01 \x01(\x0b2\x14.'
        b"google.protobuf.AnyR\x06source\x126\n\x0bdestination\x18\x02 \x01(\x0b2\x14.google.protob"
        b"uf.AnyR\x0bdestination\x12J\n\x07options\x18\x03 \x01(\x0b20.containerd.services.trans"
        b"fer.v1.TransferOptionsR\x07options\":\n\x0fTransferOptions\x12'\n\x0fprogress_s"
        b"tream\x18\x01 \x01(\tR\x0eprogressStream2`\n\x08Transfer\x12T\n\x08Transfer\x120.containerd"
        b".services.transfer.v1.TransferRequest\x1a\x16.google.protobuf.Emptyb\x06p"
        b"roto3\n\xdc\x08\n7asyncctr/backends/containerd/proto/transfer_types.prot"
        b"o\x12\x19containerd.types.transfer\x1a.asyncctr/backends/containerd/proto"
        b'/types.proto"t\n\x0bOCIRegistry\x12\x1c\n\treference\x18\x01 \x01(\tR\treference\x12G\n\x08res'
        b"olver\x18\x02 \x01(\x0b2+.containerd.types.transfer.RegistryResolverR\x08resolv"
        b'er"Z\n\x10RegistryResolver\x12\x1f\n\x0bauth_stream\x18\x01 \x01(\tR\nauthStream\x12%\n\x0edefau'
        b'lt_scheme\x18\x04 \x01(\tR\rdefaultScheme"i\n\x0bAuthRequest\x12\x12\n\x04host\x18\x01 \x01(\tR\x04hos'
        b"t\x12\x1c\n\treference\x18\x02 \x01(\tR\treference\x12(\n\x0fwwwauthenticate\x18\x03 \x03(\tR\x0fwwwaut"
        b'henticate"\x83\x01\n\x0cAuthResponse\x12?\n\x08authType\x18\x01 \x01(\x0e2#.containerd.types.'
        b"transfer.AuthTypeR\x08authType\x12\x16\n\x06secret\x18\x02 \x01(\tR\x06secret\x12\x1a\n\x08username\x18"
        b'\x03 \x01(\tR\x08username"\xa4\x01\n\nImageStore\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name\x128\n\tplatforms\x18'
        b"\x03 \x03(\x0b2\x1a.containerd.types.PlatformR\tplatforms\x12H\n\x07unpacks\x18\n \x03(\x0b2.."
        b'containerd.types.transfer.UnpackConfigurationR\x07unpacks"o\n\x13Unpack'
        b"Configuration\x126\n\x08platform\x18\x01 \x01(\x0b2\x1a.containerd.types.PlatformR\x08pla"
        b'tform\x12 \n\x0bsnapshotter\x18\x02 \x01(\tR\x0bsnapshotter"\xb2\x01\n\x08Progress\x12\x14\n\x05event\x18\x01 '
        b"\x01(\tR\x05event\x12\x12\n\x04name\x18\x02 \x01(\tR\x04name\x12\x18\n\x07parents\x18\x03 \x03(\tR\x07parents\x12\x1a\n\x08prog"
        b"ress\x18\x04 \x01(\x03R\x08progress\x12\x14\n\x05total\x18\x05 \x01(\x03R\x05total\x120\n\x04desc\x18\x06 \x01(\x0b2\x1c.conta"
        b"inerd.types.DescriptorR\x04desc*>\n\x08AuthType\x12\x08\n\x04NONE\x10\x00\x12\x0f\n\x0bCREDENTIAL"
        b"S\x10\x01\x12\x0b\n\x07REFRESH\x10\x02\x12\n\n\x06HEADER\x10\x03b\x06proto3\n\x9f\x02\n0asyncctr/backends/conta"
        b"inerd/proto/version.proto\x12\x1econtainerd.services.version.v1\x1a\x1bgoogl"
        b'e/protobuf/empty.proto"G\n\x0fVersionResponse\x12\x18\n\x07version\x18\x01 \x01(\tR\x07vers'
        b"ion\x12\x1a\n\x08revision\x18\x02 \x01(\tR\x08revision2]\n\x07Version\x12R\n\x07Version\x12\x16.google.p"
        b"rotobuf.Empty\x1a/.containerd.services.version.v1.VersionResponseb\x06"
        b"proto3"
    )
)
