using System.Diagnostics;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Text;
using Cbd.Memory;
using Cbd.Memory.Fuse;
using Xunit;
using MachineArchitecture = System.Runtime.InteropServices.Architecture;

namespace Cbd.Tests.Memory;

/// <summary>
/// Compiles every number and structure of the kernel's interface as static assertions against the installed headers.
/// What each is in C stands in a list of its area, from <see cref="FileInterfaceInC"/> to <see cref="AttachInterfaceInC"/>.
/// </summary>
public sealed class KernelInterfaceTests
{
    private const BindingFlags Statics = BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic;
    private const BindingFlags Fields = BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic;

    private const string Headers = """
        #define _GNU_SOURCE
        #include <errno.h>
        #include <fcntl.h>
        #include <grp.h>
        #include <poll.h>
        #include <pwd.h>
        #include <signal.h>
        #include <stddef.h>
        #include <stdint.h>
        #include <time.h>
        #include <unistd.h>
        #include <netinet/in.h>
        #include <netinet/tcp.h>
        #include <sys/epoll.h>
        #include <sys/eventfd.h>
        #include <sys/file.h>
        #include <sys/mman.h>
        #include <sys/prctl.h>
        #include <sys/resource.h>
        #include <sys/socket.h>
        #include <sys/stat.h>
        #include <sys/syscall.h>
        #include <sys/uio.h>
        #include <sys/vfs.h>
        #include <linux/btrfs.h>
        #include <linux/btrfs_tree.h>
        #include <linux/falloc.h>
        #include <linux/fs.h>
        #include <linux/fuse.h>
        #include <linux/futex.h>
        #include <linux/io_uring.h>
        #include <linux/loop.h>
        #include <linux/memfd.h>
        #include <linux/sockios.h>
        #include <linux/un.h>
        #include <linux/genetlink.h>
        #include <linux/magic.h>
        #include <linux/mount.h>
        #include <linux/nbd-netlink.h>
        #include <linux/openat2.h>
        #include <linux/netlink.h>
        #include <linux/ublk_cmd.h>

        """;

    private static readonly Type[] s_constantTypes =
        [typeof(KernelConstants), typeof(Errno), typeof(IoUringCalls), typeof(AllocateMode), typeof(FileType), typeof(Cbd.Memory.Sockets.SocketEvents),
            typeof(FuseProtocol), typeof(FuseOperation), typeof(FuseNotification), .. AttachInterfaceInC.ConstantTypes];

    private static readonly Type[] s_structures =
        [.. new[] { typeof(LibC), typeof(IoUringCalls), typeof(FuseProtocol) }
            .SelectMany(type => type.GetNestedTypes(BindingFlags.Public | BindingFlags.NonPublic))
            .Where(type => type.IsValueType && !type.Name.Contains('<', StringComparison.Ordinal)), .. AttachInterfaceInC.StructureTypes];

    private static readonly Dictionary<string, string> s_constantsInC =
        new([.. FileInterfaceInC.Constants, .. ProcessInterfaceInC.Constants, .. WaitingInterfaceInC.Constants, .. SocketInterfaceInC.Constants,
            .. IoUringInterfaceInC.Constants, .. FuseInterfaceInC.Constants, .. AttachInterfaceInC.Constants]);

    private static readonly Dictionary<string, (string Structure, Dictionary<string, string> Fields)> s_structuresInC =
        new([.. FileInterfaceInC.Structures, .. ProcessInterfaceInC.Structures, .. WaitingInterfaceInC.Structures, .. SocketInterfaceInC.Structures,
            .. IoUringInterfaceInC.Structures, .. FuseInterfaceInC.Structures, .. AttachInterfaceInC.Structures]);

    [Fact]
    public void Numbers_and_layouts_are_those_of_the_headers_of_this_machine()
    {
        Assert.SkipUnless(File.Exists("/usr/bin/gcc"), "gcc is not installed");
        Compile("/usr/bin/gcc", RuntimeInformation.ProcessArchitecture);
    }

    [Fact]
    public void Numbers_and_layouts_are_those_of_arm64_headers()
    {
        const string compiler = "/usr/bin/aarch64-linux-gnu-gcc";
        Assert.SkipUnless(File.Exists(compiler) && File.Exists("/usr/aarch64-linux-gnu/include/stdio.h"), "the arm64 cross compiler or its C library (gcc-aarch64-linux-gnu, libc6-dev-arm64-cross) is not installed");
        Compile(compiler, MachineArchitecture.Arm64);
    }

    [Fact]
    public void Every_number_and_structure_is_in_the_list()
    {
        Assert.Equal(
            s_constantsInC.Keys.Order(StringComparer.Ordinal),
            Constants().Select(constant => constant.Name).Concat(OpenFlagNames()).Order(StringComparer.Ordinal));
        Assert.Equal(
            s_structuresInC.Keys.Order(StringComparer.Ordinal),
            s_structures.Select(structure => structure.Name).Order(StringComparer.Ordinal));
        Assert.All(s_structures, structure => Assert.Equal(
            s_structuresInC[structure.Name].Fields.Keys.Order(StringComparer.Ordinal),
            structure.GetFields(Fields).Select(field => field.Name).Order(StringComparer.Ordinal)));
    }

    private static void Compile(string compiler, MachineArchitecture architecture)
    {
        var start = new ProcessStartInfo(compiler, "-x c -fsyntax-only -Werror -")
        {
            RedirectStandardInput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(start)!;
        process.StandardInput.Write(Program(architecture));
        process.StandardInput.Close();
        string errors = process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, errors);
    }

    private static string Program(MachineArchitecture architecture)
    {
        var program = new StringBuilder(Headers);
        foreach ((string name, long value) in Constants())
            Is(s_constantsInC[name], value, name);
        foreach (string name in OpenFlagNames())
            Is(s_constantsInC[name], Enum.Parse<OpenFlags>(name["OpenFlags.".Length..]).ToNative(architecture), name);
        Is("SYS_futex", KernelConstants.SyscallFutexOn(architecture), "futex");
        Is("SYS_unlinkat", KernelConstants.SyscallUnlinkAtOn(architecture), "unlinkat");
        Is("SYS_bind", KernelConstants.SyscallBindOn(architecture), "bind");
        Is("SYS_connect", KernelConstants.SyscallConnectOn(architecture), "connect");
        Is("SYS_fchmodat", KernelConstants.SyscallChangeModeAtOn(architecture), "fchmodat");
        Is("sizeof(struct epoll_event)", KernelConstants.EpollEventBytesOn(architecture), "size of epoll_event");
        Is("offsetof(struct epoll_event, data)", KernelConstants.EpollEventBytesOn(architecture) - 8, "epoll_event.data");
        Is("offsetof(struct statfs, f_type)", 0, "statfs.f_type");
        Is("offsetof(struct statfs, f_bsize)", 8, "statfs.f_bsize");
        Is("sizeof(struct statfs) <= 256", 1, "size of statfs");
        foreach (Type type in s_structures)
        {
            (string structure, Dictionary<string, string> members) = s_structuresInC[type.Name];
            Is(AttachInterfaceInC.SizeOf(structure), Marshal.SizeOf(type), $"size of {type.Name}");
            foreach (FieldInfo field in type.GetFields(Fields))
            {
                string member = members[field.Name];
                Type stored = field.FieldType.IsEnum ? field.FieldType.GetEnumUnderlyingType() : field.FieldType;
                int bytes = stored.IsPointer ? IntPtr.Size : Marshal.SizeOf(stored);
                Is($"offsetof({structure}, {member})", Marshal.OffsetOf(type, field.Name), $"{type.Name}.{field.Name}");
                Is($"sizeof((({structure}*)0)->{member})", bytes, $"size of {type.Name}.{field.Name}");
            }
        }

        return program.ToString();

        void Is(string expression, long value, string name)
        {
            string? youngerThan = MacroOfItsHeaders(expression);
            if (youngerThan is not null)
                program.Append($"#ifdef {youngerThan}\n");
            program.Append($"_Static_assert((long)({expression}) == {value}L, \"{name}\");\n");
            if (youngerThan is not null)
                program.Append("#endif\n");
        }
    }

    /// <summary>A macro that headers have which know of the expression; null if all have it.</summary>
    private static string? MacroOfItsHeaders(string expression) => expression switch
    {
        // Linux 6.1.
        _ when expression.Contains("DIOALIGN", StringComparison.Ordinal) || expression.Contains("stx_dio_", StringComparison.Ordinal) => "STATX_DIOALIGN",
        // Linux 6.9.
        _ when expression.Contains("fsuuid2", StringComparison.Ordinal) || expression == "FS_IOC_GETFSUUID" => "FS_IOC_GETFSUUID",
        // Linux 6.10.
        _ when expression.Contains("SUBVOL", StringComparison.Ordinal) || expression.Contains("stx_subvol", StringComparison.Ordinal) => "STATX_SUBVOL",
        // Linux 6.2.
        "FOPEN_PARALLEL_DIRECT_WRITES" => expression,
        // Linux 6.7, an enum; the first macro after it came with 6.13.
        "IORING_OP_FUTEX_WAIT" => "IORING_SETUP_HYBRID_IOPOLL",
        // Linux 6.3.
        "MFD_EXEC" => expression,
        // Commands of ublk in the encoding of ioctls (6.4), and what came after it: macros all of them.
        _ when AttachInterfaceInC.IsMacroOfYoungerHeaders(expression) => expression,
        _ => null,
    };

    /// <summary>The flags of open(2) differ between the architectures, so they have a test value of their own.</summary>
    private static IEnumerable<string> OpenFlagNames() => Enum.GetNames<OpenFlags>().Select(name => $"OpenFlags.{name}");

    private static IEnumerable<(string Name, long Value)> Constants() =>
        from type in s_constantTypes
        from field in type.GetFields(Statics)
        where field.IsLiteral && field.FieldType != typeof(string)
        where $"{type.Name}.{field.Name}" is not ("SocketEvents.None" or "FileType.Other")
        select ($"{type.Name}.{field.Name}", ToLong(field.GetRawConstantValue()!));

    private static long ToLong(object value) => value switch
    {
        ulong number => unchecked((long)number),
        nuint number => unchecked((long)number),
        nint number => number,
        _ => Convert.ToInt64(value, System.Globalization.CultureInfo.InvariantCulture),
    };
}
