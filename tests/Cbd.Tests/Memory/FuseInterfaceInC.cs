namespace Cbd.Tests.Memory;

/// <summary>What the constants and structures of FUSE are called in the headers of Linux and its C library.</summary>
internal static class FuseInterfaceInC
{
    internal static readonly Dictionary<string, string> Constants = new()
    {
        ["FuseProtocol.Version"] = "FUSE_KERNEL_VERSION",
        ["FuseProtocol.RootNode"] = "FUSE_ROOT_ID",
        ["FuseProtocol.MinorVersion"] = "FUSE_KERNEL_MINOR_VERSION >= 31 ? 31 : 0",
        ["FuseProtocol.MinimumReadBytes"] = "FUSE_MIN_READ_BUFFER",
        ["FuseProtocol.InitAsyncRead"] = "FUSE_ASYNC_READ",
        ["FuseProtocol.InitBigWrites"] = "FUSE_BIG_WRITES",
        ["FuseProtocol.InitAsyncDirectIo"] = "FUSE_ASYNC_DIO",
        ["FuseProtocol.InitMaxPages"] = "FUSE_MAX_PAGES",
        ["FuseProtocol.OpenDirectIo"] = "FOPEN_DIRECT_IO",
        ["FuseProtocol.OpenKeepCache"] = "FOPEN_KEEP_CACHE",
        ["FuseProtocol.OpenNoFlush"] = "FOPEN_NOFLUSH",
        ["FuseProtocol.OpenParallelDirectWrites"] = "FOPEN_PARALLEL_DIRECT_WRITES",
        ["FuseProtocol.IoctlClone"] = "FUSE_DEV_IOC_CLONE",
        ["FuseNotification.InvalidateInode"] = "FUSE_NOTIFY_INVAL_INODE",
        ["FuseNotification.Store"] = "FUSE_NOTIFY_STORE",
        ["FuseOperation.Lookup"] = "FUSE_LOOKUP",
        ["FuseOperation.Forget"] = "FUSE_FORGET",
        ["FuseOperation.GetAttributes"] = "FUSE_GETATTR",
        ["FuseOperation.SetAttributes"] = "FUSE_SETATTR",
        ["FuseOperation.Open"] = "FUSE_OPEN",
        ["FuseOperation.Read"] = "FUSE_READ",
        ["FuseOperation.Write"] = "FUSE_WRITE",
        ["FuseOperation.StatFs"] = "FUSE_STATFS",
        ["FuseOperation.Release"] = "FUSE_RELEASE",
        ["FuseOperation.Synchronize"] = "FUSE_FSYNC",
        ["FuseOperation.Flush"] = "FUSE_FLUSH",
        ["FuseOperation.Init"] = "FUSE_INIT",
        ["FuseOperation.OpenDirectory"] = "FUSE_OPENDIR",
        ["FuseOperation.ReadDirectory"] = "FUSE_READDIR",
        ["FuseOperation.ReleaseDirectory"] = "FUSE_RELEASEDIR",
        ["FuseOperation.Interrupt"] = "FUSE_INTERRUPT",
        ["FuseOperation.Destroy"] = "FUSE_DESTROY",
        ["FuseOperation.BatchForget"] = "FUSE_BATCH_FORGET",
        ["FuseOperation.Allocate"] = "FUSE_FALLOCATE",
    };

    internal static readonly Dictionary<string, (string Structure, Dictionary<string, string> Fields)> Structures = new()
    {
        ["RequestHeader"] = ("struct fuse_in_header", new()
        {
            ["Length"] = "len",
            ["Operation"] = "opcode",
            ["Unique"] = "unique",
            ["Node"] = "nodeid",
        }),
        ["ReplyHeader"] = ("struct fuse_out_header", new()
        {
            ["Length"] = "len",
            ["Error"] = "error",
            ["Unique"] = "unique",
        }),
        ["InitRequest"] = ("struct fuse_init_in", new()
        {
            ["Major"] = "major",
            ["Minor"] = "minor",
            ["MaxReadahead"] = "max_readahead",
            ["Flags"] = "flags",
            ["MoreFlags"] = "flags2",
        }),
        ["InitReply"] = ("struct fuse_init_out", new()
        {
            ["Major"] = "major",
            ["Minor"] = "minor",
            ["MaxReadahead"] = "max_readahead",
            ["Flags"] = "flags",
            ["MaxBackground"] = "max_background",
            ["CongestionThreshold"] = "congestion_threshold",
            ["MaxWrite"] = "max_write",
            ["TimeGranularity"] = "time_gran",
            ["MaxPages"] = "max_pages",
        }),
        ["Attributes"] = ("struct fuse_attr", new()
        {
            ["Inode"] = "ino",
            ["SizeBytes"] = "size",
            ["Blocks"] = "blocks",
            ["AccessTime"] = "atime",
            ["ChangeTime"] = "mtime",
            ["StatusTime"] = "ctime",
            ["AccessNanoseconds"] = "atimensec",
            ["ChangeNanoseconds"] = "mtimensec",
            ["StatusNanoseconds"] = "ctimensec",
            ["Mode"] = "mode",
            ["LinkCount"] = "nlink",
            ["UserId"] = "uid",
            ["GroupId"] = "gid",
            ["NodeDevice"] = "rdev",
            ["BlockBytes"] = "blksize",
            ["Flags"] = "flags",
        }),
        ["EntryReply"] = ("struct fuse_entry_out", new()
        {
            ["Node"] = "nodeid",
            ["Generation"] = "generation",
            ["EntryValid"] = "entry_valid",
            ["AttributesValid"] = "attr_valid",
            ["EntryValidNanoseconds"] = "entry_valid_nsec",
            ["AttributesValidNanoseconds"] = "attr_valid_nsec",
            ["Attributes"] = "attr",
        }),
        ["AttributesReply"] = ("struct fuse_attr_out", new()
        {
            ["Valid"] = "attr_valid",
            ["ValidNanoseconds"] = "attr_valid_nsec",
            ["Padding"] = "dummy",
            ["Attributes"] = "attr",
        }),
        ["OpenReply"] = ("struct fuse_open_out", new()
        {
            ["Handle"] = "fh",
            ["Flags"] = "open_flags",
            ["Padding"] = "padding",
        }),
        ["ReadRequest"] = ("struct fuse_read_in", new()
        {
            ["Handle"] = "fh",
            ["Offset"] = "offset",
            ["Size"] = "size",
            ["ReadFlags"] = "read_flags",
            ["LockOwner"] = "lock_owner",
            ["FileFlags"] = "flags",
            ["Padding"] = "padding",
        }),
        ["WriteRequest"] = ("struct fuse_write_in", new()
        {
            ["Handle"] = "fh",
            ["Offset"] = "offset",
            ["Size"] = "size",
            ["WriteFlags"] = "write_flags",
            ["LockOwner"] = "lock_owner",
            ["FileFlags"] = "flags",
            ["Padding"] = "padding",
        }),
        ["WriteReply"] = ("struct fuse_write_out", new()
        {
            ["Size"] = "size",
            ["Padding"] = "padding",
        }),
        ["SynchronizeRequest"] = ("struct fuse_fsync_in", new()
        {
            ["Handle"] = "fh",
            ["Flags"] = "fsync_flags",
            ["Padding"] = "padding",
        }),
        ["AllocateRequest"] = ("struct fuse_fallocate_in", new()
        {
            ["Handle"] = "fh",
            ["Offset"] = "offset",
            ["Length"] = "length",
            ["Mode"] = "mode",
            ["Padding"] = "padding",
        }),
        ["StoreNotification"] = ("struct fuse_notify_store_out", new()
        {
            ["Node"] = "nodeid",
            ["Offset"] = "offset",
            ["Size"] = "size",
            ["Padding"] = "padding",
        }),
        ["InvalidateInodeNotification"] = ("struct fuse_notify_inval_inode_out", new()
        {
            ["Node"] = "ino",
            ["Offset"] = "off",
            ["Length"] = "len",
        }),
        ["StatFsReply"] = ("struct fuse_statfs_out", new()
        {
            ["Blocks"] = "st.blocks",
            ["FreeBlocks"] = "st.bfree",
            ["AvailableBlocks"] = "st.bavail",
            ["Files"] = "st.files",
            ["FreeFiles"] = "st.ffree",
            ["BlockBytes"] = "st.bsize",
            ["NameBytes"] = "st.namelen",
            ["FragmentBytes"] = "st.frsize",
        }),
    };
}
