using System.Reflection;
using System.Runtime.InteropServices;
using System.Text;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Disks;

/// <summary>Compares the disks' constants and structures with the installed kernel headers, by the C compiler.</summary>
public class The_kernel_interface_of_disks
{
    private const BindingFlags Any = BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic;

    /// <summary>Each constant with its expression in C; "-" for those that are no kernel constants.</summary>
    private static readonly Dictionary<string, string> s_constants = new()
    {
        ["IoUringCalls.SetupClamp"] = "IORING_SETUP_CLAMP",
        ["IoUringCalls.SetupSubmitAll"] = "IORING_SETUP_SUBMIT_ALL",
        ["IoUringCalls.SetupCooperativeTaskRun"] = "IORING_SETUP_COOP_TASKRUN",
        ["IoUringCalls.SetupTaskRunFlag"] = "IORING_SETUP_TASKRUN_FLAG",
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
        ["IoUringCalls.MapRings"] = "IORING_OFF_SQ_RING",
        ["IoUringCalls.MapEntries"] = "IORING_OFF_SQES",
        ["IoUringCalls.CallSetup"] = "SYS_io_uring_setup",
        ["IoUringCalls.CallEnter"] = "SYS_io_uring_enter",
        ["IoUringCalls.CallRegister"] = "SYS_io_uring_register",
        ["FileCalls.ProtRead"] = "PROT_READ",
        ["FileCalls.ProtWrite"] = "PROT_WRITE",
        ["FileCalls.MapShared"] = "MAP_SHARED",
        ["FileCalls.MapPrivate"] = "MAP_PRIVATE",
        ["FileCalls.MapAnonymous"] = "MAP_ANONYMOUS",
        ["FileCalls.MapNoReserve"] = "MAP_NORESERVE",
        ["FileCalls.MapPopulate"] = "MAP_POPULATE",
        ["FileCalls.AdviseDontNeed"] = "MADV_DONTNEED",
        ["FileCalls.EventNonBlocking"] = "EFD_NONBLOCK",
        ["FileCalls.EventCloseOnExec"] = "EFD_CLOEXEC",
        ["FileCalls.PollIn"] = "POLLIN",
        ["FileCalls.EINTR"] = "EINTR",
        ["FileCalls.EAGAIN"] = "EAGAIN",
        ["FileCalls.EBUSY"] = "EBUSY",
        ["FileCalls.ENOMEM"] = "ENOMEM",
        ["FileCalls.EINVAL"] = "EINVAL",
        ["FileCalls.EOVERFLOW"] = "EOVERFLOW",
        ["FileCalls.EOPNOTSUPP"] = "EOPNOTSUPP",
        ["FileCalls.ETIME"] = "ETIME",
        ["FileCalls.OpenReadOnly"] = "O_RDONLY",
        ["FileCalls.OpenReadWrite"] = "O_RDWR",
        ["FileCalls.OpenExclusive"] = "O_EXCL",
        ["FileCalls.OpenNoTerminal"] = "O_NOCTTY",
        ["FileCalls.OpenCloseOnExec"] = "O_CLOEXEC",
        ["FileCalls.FcntlGetFlags"] = "F_GETFL",
        ["FileCalls.FcntlSetFlags"] = "F_SETFL",
        ["FileCalls.FcntlSetOpenFileLock"] = "F_OFD_SETLK",
        ["FileCalls.LockRead"] = "F_RDLCK",
        ["FileCalls.LockWrite"] = "F_WRLCK",
        ["FileCalls.LockNone"] = "F_UNLCK",
        ["FileCalls.AtCurrentDirectory"] = "AT_FDCWD",
        ["FileCalls.AtEmptyPath"] = "AT_EMPTY_PATH",
        ["FileCalls.StatBasic"] = "STATX_BASIC_STATS",
        ["FileCalls.StatDirectAlignment"] = "0x2000 /* STATX_DIOALIGN, Linux 6.1 */",
        ["FileCalls.WriteDataSync"] = "RWF_DSYNC",
        ["FileCalls.AdviseWillNeed"] = "POSIX_FADV_WILLNEED",
        ["FileCalls.SeekToData"] = "SEEK_DATA",
        ["FileCalls.SeekToHole"] = "SEEK_HOLE",
        ["FileCalls.IoctlBlockReadOnly"] = "BLKROGET",
        ["FileCalls.IoctlLogicalBlock"] = "BLKSSZGET",
        ["FileCalls.IoctlPhysicalBlock"] = "BLKPBSZGET",
        ["FileCalls.IoctlDiscard"] = "BLKDISCARD",
        ["FileCalls.IoctlZeroOut"] = "BLKZEROOUT",
        ["FileCalls.IoctlSizeBytes"] = "BLKGETSIZE64",
        ["FileCalls.IoctlDiskSequence"] = "BLKGETDISKSEQ",
        ["FileCalls.IoctlGeneration"] = "FS_IOC_GETVERSION",
        ["DiskAllocateMode.PunchHole"] = "FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE",
        ["DiskAllocateMode.ZeroRange"] = "FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE",
    };

    /// <summary>Each structure and its fields in C.</summary>
    private static readonly Dictionary<string, (string Structure, Dictionary<string, string> Fields)> s_structures = new()
    {
        ["IoUringCalls+SubmissionEntry"] = ("struct io_uring_sqe", new()
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
        }),
        ["IoUringCalls+CompletionEntry"] = ("struct io_uring_cqe", new()
        {
            ["UserData"] = "user_data",
            ["Result"] = "res",
            ["Flags"] = "flags",
        }),
        ["IoUringCalls+Parameters"] = ("struct io_uring_params", new()
        {
            ["SubmissionCount"] = "sq_entries",
            ["CompletionCount"] = "cq_entries",
            ["Flags"] = "flags",
            ["Features"] = "features",
            ["Submission"] = "sq_off",
            ["Completion"] = "cq_off",
        }),
        ["IoUringCalls+SubmissionOffsets"] = ("struct io_sqring_offsets", new()
        {
            ["Head"] = "head",
            ["Tail"] = "tail",
            ["RingMask"] = "ring_mask",
            ["RingEntries"] = "ring_entries",
            ["Flags"] = "flags",
            ["Dropped"] = "dropped",
            ["Array"] = "array",
        }),
        ["IoUringCalls+CompletionOffsets"] = ("struct io_cqring_offsets", new()
        {
            ["Head"] = "head",
            ["Tail"] = "tail",
            ["RingMask"] = "ring_mask",
            ["RingEntries"] = "ring_entries",
            ["Overflow"] = "overflow",
            ["Entries"] = "cqes",
        }),
        ["IoUringCalls+WaitArgument"] = ("struct io_uring_getevents_arg", new()
        {
            ["SignalMask"] = "sigmask",
            ["SignalMaskBytes"] = "sigmask_sz",
            ["Padding"] = "pad",
            ["Timeout"] = "ts",
        }),
        ["FileCalls+PollDescriptor"] = ("struct pollfd", new()
        {
            ["Descriptor"] = "fd",
            ["Events"] = "events",
            ["Returned"] = "revents",
        }),
        ["FileCalls+TimeSpec"] = ("struct timespec", new()
        {
            ["Seconds"] = "tv_sec",
            ["Nanoseconds"] = "tv_nsec",
        }),
        ["FileCalls+IoVector"] = ("struct iovec", new()
        {
            ["Start"] = "iov_base",
            ["Length"] = "iov_len",
        }),
        ["FileCalls+FileLock"] = ("struct flock", new()
        {
            ["Type"] = "l_type",
            ["Whence"] = "l_whence",
            ["Start"] = "l_start",
            ["Length"] = "l_len",
            ["Process"] = "l_pid",
        }),
        ["FileCalls+FileStatusRaw"] = ("struct statx", new()
        {
            ["Mask"] = "stx_mask",
            ["BlockSize"] = "stx_blksize",
            ["Mode"] = "stx_mode",
            ["Inode"] = "stx_ino",
            ["Size"] = "stx_size",
            ["Blocks"] = "stx_blocks",
            ["NodeMajor"] = "stx_rdev_major",
            ["NodeMinor"] = "stx_rdev_minor",
            ["DeviceMajor"] = "stx_dev_major",
            ["DeviceMinor"] = "stx_dev_minor",
            ["DirectMemoryAlignment"] = "stx_dio_mem_align",
            ["DirectOffsetAlignment"] = "stx_dio_offset_align",
        }),
    };

    private static readonly Type[] s_types =
        [.. new[] { "IoUringCalls", "FileCalls", "DiskAllocateMode" }.Select(name => typeof(DiskFile).Assembly.GetType($"Cbd.Memory.{name}", true)!)];

    [Fact]
    public void Is_listed_here_completely()
    {
        Assert.Equal(
            s_constants.Keys.Order(StringComparer.Ordinal), Constants().Select(constant => constant.Name).Order(StringComparer.Ordinal));
        Assert.Equal(
            s_structures.Keys.Order(StringComparer.Ordinal), Structures().Select(structure => structure.Name).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Equals_the_installed_headers()
    {
        if (!File.Exists("/usr/bin/gcc") && !File.Exists("/usr/bin/cc"))
            Assert.Skip("no C compiler is installed");
        if (!File.Exists("/usr/include/linux/io_uring.h"))
            Assert.Skip("the kernel headers are not installed");
        var source = new StringBuilder("""
            #define _GNU_SOURCE
            #include <errno.h>
            #include <fcntl.h>
            #include <poll.h>
            #include <stddef.h>
            #include <sys/eventfd.h>
            #include <sys/mman.h>
            #include <sys/stat.h>
            #include <sys/syscall.h>
            #include <sys/uio.h>
            #include <time.h>
            #include <unistd.h>
            #include <linux/fs.h>
            #include <linux/io_uring.h>

            """);
        foreach (var (name, value) in Constants())
            source.AppendLine($"_Static_assert(({s_constants[name]}) == {value}, \"{name}\");");
        source.AppendLine($"_Static_assert(O_DIRECT == {s_types[1].GetProperty("OpenDirect", Any)!.GetValue(null)}, \"OpenDirect\");");
        foreach (var (name, type) in Structures())
        {
            var (structure, fields) = s_structures[name];
            source.AppendLine($"_Static_assert(sizeof({structure}) == {Marshal.SizeOf(type)}, \"size of {name}\");");
            foreach (var field in type.GetFields(BindingFlags.Instance | BindingFlags.Public))
            {
                string member = fields[field.Name];
                if (member.StartsWith("stx_dio", StringComparison.Ordinal))
                    source.AppendLine("#ifdef STATX_DIOALIGN");
                source.AppendLine(
                    $"_Static_assert(offsetof({structure}, {member}) == {Marshal.OffsetOf(type, field.Name)}, \"{name}.{field.Name}\");");
                source.AppendLine(
                    $"_Static_assert(sizeof((({structure}*)0)->{member}) == {SizeOf(field.FieldType)}, \"size of {name}.{field.Name}\");");
                if (member.StartsWith("stx_dio", StringComparison.Ordinal))
                    source.AppendLine("#endif");
            }
        }
        string folder = Directory.CreateTempSubdirectory("cbd-headers-").FullName;
        try
        {
            string path = Path.Combine(folder, "check.c");
            File.WriteAllText(path, source.ToString());
            TestDisk.Run(File.Exists("/usr/bin/gcc") ? "gcc" : "cc", "-std=c11", "-fsyntax-only", path);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static int SizeOf(Type type) => type.IsPointer ? IntPtr.Size : Marshal.SizeOf(type);

    private static IEnumerable<(string Name, object Value)> Constants() =>
        from type in s_types
        from field in type.GetFields(Any)
        where field.IsLiteral
        select ($"{type.Name}.{field.Name}", field.GetRawConstantValue()!);

    private static IEnumerable<(string Name, Type Type)> Structures() =>
        from type in s_types
        from nested in type.GetNestedTypes(BindingFlags.Public | BindingFlags.NonPublic)
        where nested.IsValueType && !nested.Name.Contains('<', StringComparison.Ordinal)
        select ($"{type.Name}+{nested.Name}", nested);
}
