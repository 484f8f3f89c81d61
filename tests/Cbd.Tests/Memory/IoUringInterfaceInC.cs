namespace Cbd.Tests.Memory;

/// <summary>What the constants and structures of io_uring are called in the headers of Linux and its C library.</summary>
internal static class IoUringInterfaceInC
{
    internal static readonly Dictionary<string, string> Constants = new()
    {
        ["KernelConstants.SyscallIoUringSetup"] = "SYS_io_uring_setup",
        ["KernelConstants.SyscallIoUringEnter"] = "SYS_io_uring_enter",
        ["KernelConstants.SyscallIoUringRegister"] = "SYS_io_uring_register",
        ["IoUringCalls.SetupClamp"] = "IORING_SETUP_CLAMP",
        ["IoUringCalls.SetupSubmitAll"] = "IORING_SETUP_SUBMIT_ALL",
        ["IoUringCalls.SetupCooperativeTaskRun"] = "IORING_SETUP_COOP_TASKRUN",
        ["IoUringCalls.SetupTaskRunFlag"] = "IORING_SETUP_TASKRUN_FLAG",
        ["IoUringCalls.SetupWideEntries"] = "IORING_SETUP_SQE128",
        ["IoUringCalls.FeatureSingleMap"] = "IORING_FEAT_SINGLE_MMAP",
        ["IoUringCalls.FeatureNoDrop"] = "IORING_FEAT_NODROP",
        ["IoUringCalls.FeatureExtendedArgument"] = "IORING_FEAT_EXT_ARG",
        ["IoUringCalls.EnterGetEvents"] = "IORING_ENTER_GETEVENTS",
        ["IoUringCalls.EnterExtendedArgument"] = "IORING_ENTER_EXT_ARG",
        ["IoUringCalls.SubmissionOverflow"] = "IORING_SQ_CQ_OVERFLOW",
        ["IoUringCalls.SubmissionTaskRun"] = "IORING_SQ_TASKRUN",
        ["IoUringCalls.RegisterBuffers"] = "IORING_REGISTER_BUFFERS",
        ["IoUringCalls.UnregisterBuffers"] = "IORING_UNREGISTER_BUFFERS",
        ["IoUringCalls.RegisterFiles"] = "IORING_REGISTER_FILES",
        ["IoUringCalls.UnregisterFiles"] = "IORING_UNREGISTER_FILES",
        ["IoUringCalls.EntryFixedFile"] = "IOSQE_FIXED_FILE",
        ["IoUringCalls.SyncDataOnly"] = "IORING_FSYNC_DATASYNC",
        ["IoUringCalls.OperationSync"] = "IORING_OP_FSYNC",
        ["IoUringCalls.OperationReadFixed"] = "IORING_OP_READ_FIXED",
        ["IoUringCalls.OperationWriteFixed"] = "IORING_OP_WRITE_FIXED",
        ["IoUringCalls.OperationPollAdd"] = "IORING_OP_POLL_ADD",
        ["IoUringCalls.OperationAllocate"] = "IORING_OP_FALLOCATE",
        ["IoUringCalls.OperationRead"] = "IORING_OP_READ",
        ["IoUringCalls.OperationWrite"] = "IORING_OP_WRITE",
        ["IoUringCalls.OperationCommand"] = "IORING_OP_URING_CMD",
        ["IoUringCalls.CommandOffset"] = "offsetof(struct io_uring_sqe, cmd)",
        ["IoUringCalls.OperationFutexWait"] = "IORING_OP_FUTEX_WAIT",
        ["IoUringCalls.MapRings"] = "IORING_OFF_SQ_RING",
        ["IoUringCalls.MapEntries"] = "IORING_OFF_SQES",
    };

    internal static readonly Dictionary<string, (string Structure, Dictionary<string, string> Fields)> Structures = new()
    {
        ["SubmissionEntry"] = ("struct io_uring_sqe", new()
        {
            ["Operation"] = "opcode",
            ["Flags"] = "flags",
            ["Descriptor"] = "fd",
            ["Offset"] = "off",
            ["Address"] = "addr",
            ["Length"] = "len",
            ["OperationFlags"] = "rw_flags",
            ["UserData"] = "user_data",
            ["BufferIndex"] = "buf_index",
            ["FutexMask"] = "addr3",
        }),
        ["CompletionEntry"] = ("struct io_uring_cqe", new()
        {
            ["UserData"] = "user_data",
            ["Result"] = "res",
            ["Flags"] = "flags",
        }),
        ["Parameters"] = ("struct io_uring_params", new()
        {
            ["SubmissionCount"] = "sq_entries",
            ["CompletionCount"] = "cq_entries",
            ["Flags"] = "flags",
            ["Features"] = "features",
            ["Submission"] = "sq_off",
            ["Completion"] = "cq_off",
        }),
        ["SubmissionOffsets"] = ("struct io_sqring_offsets", new()
        {
            ["Head"] = "head",
            ["Tail"] = "tail",
            ["RingMask"] = "ring_mask",
            ["RingEntries"] = "ring_entries",
            ["Flags"] = "flags",
            ["Dropped"] = "dropped",
            ["Array"] = "array",
        }),
        ["CompletionOffsets"] = ("struct io_cqring_offsets", new()
        {
            ["Head"] = "head",
            ["Tail"] = "tail",
            ["RingMask"] = "ring_mask",
            ["RingEntries"] = "ring_entries",
            ["Overflow"] = "overflow",
            ["Entries"] = "cqes",
        }),
        ["WaitArgument"] = ("struct io_uring_getevents_arg", new()
        {
            ["SignalMask"] = "sigmask",
            ["SignalMaskBytes"] = "sigmask_sz",
            ["Padding"] = "pad",
            ["Timeout"] = "ts",
        }),
    };
}
