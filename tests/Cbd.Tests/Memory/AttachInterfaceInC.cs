using Cbd.Exports.KernelNbd;
using Cbd.Exports.Ublk;

namespace Cbd.Tests.Memory;

/// <summary>What the constants and structures of ublk and of the kernel's nbd are called in the headers of Linux.</summary>
internal static class AttachInterfaceInC
{
    internal static readonly Type[] ConstantTypes =
        [typeof(UblkProtocol), typeof(NbdNetlinkProtocol), typeof(NetlinkMessage), typeof(NetlinkAnswer)];

    internal static readonly Type[] StructureTypes =
        [typeof(UblkControlCommand), typeof(UblkDeviceInfo), typeof(UblkParameters), typeof(UblkIoDescriptor), typeof(UblkIoCommand)];

    internal static readonly Dictionary<string, string> Constants = new()
    {
        ["UblkProtocol.AnyDevice"] = "(__u32)-1",
        ["UblkProtocol.NoQueue"] = "(__u16)-1",
        ["UblkProtocol.GetDeviceInfo"] = "_IOR('u', UBLK_CMD_GET_DEV_INFO, struct ublksrv_ctrl_cmd)",
        ["UblkProtocol.AddDevice"] = "_IOWR('u', UBLK_CMD_ADD_DEV, struct ublksrv_ctrl_cmd)",
        ["UblkProtocol.DeleteDevice"] = "_IOWR('u', UBLK_CMD_DEL_DEV, struct ublksrv_ctrl_cmd)",
        ["UblkProtocol.StartDevice"] = "_IOWR('u', UBLK_CMD_START_DEV, struct ublksrv_ctrl_cmd)",
        ["UblkProtocol.StopDevice"] = "_IOWR('u', UBLK_CMD_STOP_DEV, struct ublksrv_ctrl_cmd)",
        ["UblkProtocol.StartUserRecovery"] = "_IOWR('u', UBLK_CMD_START_USER_RECOVERY, struct ublksrv_ctrl_cmd)",
        ["UblkProtocol.EndUserRecovery"] = "_IOWR('u', UBLK_CMD_END_USER_RECOVERY, struct ublksrv_ctrl_cmd)",
        ["UblkProtocol.SetParameters"] = "_IOWR('u', UBLK_CMD_SET_PARAMS, struct ublksrv_ctrl_cmd)",
        ["UblkProtocol.GetFeatures"] = "UBLK_U_CMD_GET_FEATURES",
        ["UblkProtocol.DeleteDeviceLater"] = "UBLK_U_CMD_DEL_DEV_ASYNC",
        ["UblkProtocol.UpdateSize"] = "UBLK_U_CMD_UPDATE_SIZE",
        ["UblkProtocol.FetchRequest"] = "_IOWR('u', UBLK_IO_FETCH_REQ, struct ublksrv_io_cmd)",
        ["UblkProtocol.CommitAndFetchRequest"] = "_IOWR('u', UBLK_IO_COMMIT_AND_FETCH_REQ, struct ublksrv_io_cmd)",
        ["UblkProtocol.ResultOk"] = "UBLK_IO_RES_OK",
        ["UblkProtocol.ResultAbort"] = "UBLK_IO_RES_ABORT",
        ["UblkProtocol.MaxQueueDepth"] = "UBLK_MAX_QUEUE_DEPTH",
        ["UblkProtocol.FeatureUserRecovery"] = "UBLK_F_USER_RECOVERY",
        ["UblkProtocol.FeatureUserRecoveryReissue"] = "UBLK_F_USER_RECOVERY_REISSUE",
        ["UblkProtocol.FeatureIoctlEncoding"] = "UBLK_F_CMD_IOCTL_ENCODE",
        ["UblkProtocol.FeatureUpdateSize"] = "UBLK_F_UPDATE_SIZE",
        ["UblkProtocol.StateDead"] = "UBLK_S_DEV_DEAD",
        ["UblkProtocol.StateLive"] = "UBLK_S_DEV_LIVE",
        ["UblkProtocol.StateQuiesced"] = "UBLK_S_DEV_QUIESCED",
        ["UblkProtocol.StateFailIo"] = "UBLK_S_DEV_FAIL_IO",
        ["UblkProtocol.OperationMask"] = "0xff",
        ["UblkProtocol.OperationRead"] = "UBLK_IO_OP_READ",
        ["UblkProtocol.OperationWrite"] = "UBLK_IO_OP_WRITE",
        ["UblkProtocol.OperationFlush"] = "UBLK_IO_OP_FLUSH",
        ["UblkProtocol.OperationDiscard"] = "UBLK_IO_OP_DISCARD",
        ["UblkProtocol.OperationWriteZeroes"] = "UBLK_IO_OP_WRITE_ZEROES",
        ["UblkProtocol.FlagForceUnitAccess"] = "UBLK_IO_F_FUA",
        ["UblkProtocol.FlagNoUnmap"] = "UBLK_IO_F_NOUNMAP",
        ["UblkProtocol.ParametersBasic"] = "UBLK_PARAM_TYPE_BASIC",
        ["UblkProtocol.ParametersDiscard"] = "UBLK_PARAM_TYPE_DISCARD",
        ["UblkProtocol.AttributeReadOnly"] = "UBLK_ATTR_READ_ONLY",
        ["UblkProtocol.AttributeVolatileCache"] = "UBLK_ATTR_VOLATILE_CACHE",
        ["UblkProtocol.AttributeForceUnitAccess"] = "UBLK_ATTR_FUA",
        ["UblkProtocol.SectorBytes"] = "512",
        ["UblkProtocol.SectorShift"] = "9",
        ["UblkProtocol.Read"] = "_IOC_READ",
        ["UblkProtocol.ReadWrite"] = "_IOC_READ | _IOC_WRITE",
        ["UblkProtocol.Magic"] = "'u' << _IOC_TYPESHIFT",
        ["UblkProtocol.ControlBytes"] = "sizeof(struct ublksrv_ctrl_cmd)",
        ["UblkProtocol.IoCommandBytes"] = "sizeof(struct ublksrv_io_cmd)",
        ["NbdNetlinkProtocol.Version"] = "NBD_GENL_VERSION",
        ["NbdNetlinkProtocol.CommandConnect"] = "NBD_CMD_CONNECT",
        ["NbdNetlinkProtocol.CommandDisconnect"] = "NBD_CMD_DISCONNECT",
        ["NbdNetlinkProtocol.CommandReconfigure"] = "NBD_CMD_RECONFIGURE",
        ["NbdNetlinkProtocol.AttributeIndex"] = "NBD_ATTR_INDEX",
        ["NbdNetlinkProtocol.AttributeSizeBytes"] = "NBD_ATTR_SIZE_BYTES",
        ["NbdNetlinkProtocol.AttributeBlockBytes"] = "NBD_ATTR_BLOCK_SIZE_BYTES",
        ["NbdNetlinkProtocol.AttributeTimeout"] = "NBD_ATTR_TIMEOUT",
        ["NbdNetlinkProtocol.AttributeServerFlags"] = "NBD_ATTR_SERVER_FLAGS",
        ["NbdNetlinkProtocol.AttributeSockets"] = "NBD_ATTR_SOCKETS",
        ["NbdNetlinkProtocol.AttributeDeadConnectionTimeout"] = "NBD_ATTR_DEAD_CONN_TIMEOUT",
        ["NbdNetlinkProtocol.AttributeBackend"] = "NBD_ATTR_BACKEND_IDENTIFIER",
        ["NbdNetlinkProtocol.SocketItem"] = "NBD_SOCK_ITEM",
        ["NbdNetlinkProtocol.SocketDescriptor"] = "NBD_SOCK_FD",
        ["NbdNetlinkProtocol.ControlFamily"] = "GENL_ID_CTRL",
        ["NbdNetlinkProtocol.ControlVersion"] = "2",
        ["NbdNetlinkProtocol.ControlGetFamily"] = "CTRL_CMD_GETFAMILY",
        ["NbdNetlinkProtocol.ControlFamilyId"] = "CTRL_ATTR_FAMILY_ID",
        ["NbdNetlinkProtocol.ControlFamilyName"] = "CTRL_ATTR_FAMILY_NAME",
        ["NetlinkMessage.HeaderBytes"] = "NLMSG_HDRLEN + GENL_HDRLEN",
        ["NetlinkMessage.AttributeHeaderBytes"] = "NLA_HDRLEN",
        ["NetlinkMessage.FlagRequest"] = "NLM_F_REQUEST",
        ["NetlinkMessage.FlagAcknowledge"] = "NLM_F_ACK",
        ["NetlinkMessage.NestedAttribute"] = "NLA_F_NESTED",
        ["NetlinkAnswer.MessageHeaderBytes"] = "NLMSG_HDRLEN",
        ["NetlinkAnswer.ErrorBytes"] = "sizeof(((struct nlmsgerr*)0)->error)",
        ["NetlinkAnswer.TypeError"] = "NLMSG_ERROR",
        ["NetlinkAnswer.TypeDone"] = "NLMSG_DONE",
        ["NetlinkAnswer.FlagExtended"] = "NLM_F_ACK_TLVS",
        ["NetlinkAnswer.FlagShort"] = "NLM_F_CAPPED",
        ["NetlinkAnswer.ErrorText"] = "NLMSGERR_ATTR_MSG",
        ["NetlinkAnswer.TypeMask"] = "NLA_TYPE_MASK & 0xffff",
    };

    internal static readonly Dictionary<string, (string Structure, Dictionary<string, string> Fields)> Structures = new()
    {
        ["UblkControlCommand"] = ("struct ublksrv_ctrl_cmd", new()
        {
            ["Device"] = "dev_id",
            ["Queue"] = "queue_id",
            ["BufferBytes"] = "len",
            ["Buffer"] = "addr",
            ["Value"] = "data[0]",
        }),
        ["UblkDeviceInfo"] = ("struct ublksrv_ctrl_dev_info", new()
        {
            ["Queues"] = "nr_hw_queues",
            ["QueueDepth"] = "queue_depth",
            ["State"] = "state",
            ["MaxTransferBytes"] = "max_io_buf_bytes",
            ["Device"] = "dev_id",
            ["ProcessId"] = "ublksrv_pid",
            ["Flags"] = "flags",
            ["Owner"] = "ublksrv_flags",
        }),
        ["UblkParameters"] = ("struct ublk_params", new()
        {
            ["Length"] = "len",
            ["Kinds"] = "types",
            ["Attributes"] = "basic.attrs",
            ["LogicalShift"] = "basic.logical_bs_shift",
            ["PhysicalShift"] = "basic.physical_bs_shift",
            ["OptimalShift"] = "basic.io_opt_shift",
            ["MinimumShift"] = "basic.io_min_shift",
            ["MaxSectors"] = "basic.max_sectors",
            ["ChunkSectors"] = "basic.chunk_sectors",
            ["SizeSectors"] = "basic.dev_sectors",
            ["VirtualBoundary"] = "basic.virt_boundary_mask",
            ["DiscardAlignment"] = "discard.discard_alignment",
            ["DiscardGranularity"] = "discard.discard_granularity",
            ["MaxDiscardSectors"] = "discard.max_discard_sectors",
            ["MaxWriteZeroesSectors"] = "discard.max_write_zeroes_sectors",
            ["MaxDiscardSegments"] = "discard.max_discard_segments",
        }),
        ["UblkIoDescriptor"] = ("struct ublksrv_io_desc", new()
        {
            ["OperationFlags"] = "op_flags",
            ["Sectors"] = "nr_sectors",
            ["StartSector"] = "start_sector",
            ["Address"] = "addr",
        }),
        ["UblkIoCommand"] = ("struct ublksrv_io_cmd", new()
        {
            ["Queue"] = "q_id",
            ["Tag"] = "tag",
            ["Result"] = "result",
            ["Address"] = "addr",
        }),
    };

    /// <summary>The parameters end before what younger kernels added; a field in them says so.</summary>
    internal static string SizeOf(string structure) => structure == "struct ublk_params"
        ? "offsetof(struct ublk_params, discard) + sizeof(struct ublk_param_discard)"
        : $"sizeof({structure})";

    internal static bool IsMacroOfYoungerHeaders(string expression) =>
        expression.StartsWith("UBLK_U_CMD_", StringComparison.Ordinal) ||
        expression is "UBLK_F_CMD_IOCTL_ENCODE" or "UBLK_F_UPDATE_SIZE" or "UBLK_S_DEV_FAIL_IO";
}
